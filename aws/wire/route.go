package wire

import (
	"fmt"
	"strings"
)

// A route is a node of the tree of path segments. Literal segments win over
// labels; where the literal branch leads nowhere the label is tried, and last
// the literals that match in any case.
type route struct {
	literals map[string]*route
	folded   map[string]*route // keys in lower case
	label    *route
	leaves   []leaf
}

// leaf is an operation that ends at a route, with the names of its labels in
// the order of the path.
type leaf struct {
	op    *Op
	names []string
}

func (r *route) add(uri string, op *Op) {
	var names []string
	for seg := range strings.SplitSeq(strings.TrimPrefix(uri, "/"), "/") {
		if strings.HasPrefix(seg, "{") && strings.HasSuffix(seg, "}") {
			names = append(names, seg[1:len(seg)-1])
			if r.label == nil {
				r.label = &route{}
			}
			r = r.label
			continue
		}
		next := r.literals[seg]
		if next == nil {
			next = &route{}
			if r.literals == nil {
				r.literals = map[string]*route{}
			}
			r.literals[seg] = next
		}
		if op.FoldCase {
			if r.folded == nil {
				r.folded = map[string]*route{}
			}
			r.folded[strings.ToLower(seg)] = next
		}
		r = next
	}
	for _, l := range r.leaves {
		if l.op.Method == op.Method {
			panic(fmt.Sprintf("wire: %s and %s claim %s %s", l.op.Key(), op.Key(), op.Method, uri))
		}
	}
	r.leaves = append(r.leaves, leaf{op, names})
}

// find walks the segments and returns the route they end at with the values of
// its labels; nil if there is none. A label is never empty.
func (r *route) find(segments, labels []string) (*route, []string) {
	if len(segments) == 0 {
		if len(r.leaves) == 0 {
			return nil, nil
		}
		return r, labels
	}
	seg, rest := segments[0], segments[1:]
	exact := r.literals[seg]
	if exact != nil {
		if f, l := exact.find(rest, labels); f != nil {
			return f, l
		}
	}
	if r.label != nil && seg != "" {
		// Clipped, so that a branch that fails leaves nothing behind.
		if f, l := r.label.find(rest, append(labels[:len(labels):len(labels)], seg)); f != nil {
			return f, l
		}
	}
	if r.folded != nil {
		if next := r.folded[strings.ToLower(seg)]; next != nil && next != exact {
			return next.find(rest, labels)
		}
	}
	return nil, nil
}

// commonPath returns the literal path that all operations of a service start
// with: "/v1/email", or "" if there is none.
func commonPath(ops []*Op) string {
	var common []string
	for i, op := range ops {
		segs := strings.Split(op.URI, "/")[1:]
		if i == 0 {
			common = segs
		}
		n := 0
		for n < len(common) && n < len(segs) && common[n] == segs[n] && !strings.HasPrefix(segs[n], "{") {
			n++
		}
		common = common[:n]
	}
	if len(common) == 0 {
		return ""
	}
	return "/" + strings.Join(common, "/")
}
