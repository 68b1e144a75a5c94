package templates

import (
	"slices"
)

// A run is one execution. It is reused; begin and end leave nothing behind.
type run struct {
	out      []byte
	outMax   int
	html     bool
	vars     Vars
	context  Context
	frames   []frame
	depth    int // of partial calls
	work     int // units left
	missing  []string
	unusable []string
	err      error
}

// A frame is what a block or partial has made the current item.
type frame struct {
	value Value
	key   string // @key, in a walk over a map
	index int
	last  int // the last index
	loop  bool

	// names and values are a partial's hash arguments. A frame that has only
	// those is transparent: this and ../ look past it.
	names       []string
	values      []Value
	transparent bool
}

func (r *run) begin(t *Template, dst []byte, vars Vars, c Context) {
	r.out, r.outMax, r.html = dst, len(dst)+outputBytesMax, t.html
	r.vars, r.context, r.work = vars, c, workMax
}

func (r *run) end() {
	clear(r.frames[:cap(r.frames)])
	*r = run{frames: r.frames[:0]}
}

// step takes one unit of work and reports whether the execution may go on.
func (r *run) step() bool { return r.charge(0) }

// charge takes a unit of work and one more for each 64 bytes.
func (r *run) charge(bytes int) bool {
	if r.err != nil {
		return false
	}
	if r.work -= 1 + bytes/64; r.work < 0 {
		r.err = ErrTooMuchWork
		return false
	}
	return true
}

// nodes executes ns; afterwards r.err says whether to go on.
func (r *run) nodes(ns []node) {
	for i := range ns {
		if !r.step() {
			return
		}
		n := &ns[i]
		switch n.kind {
		case nodeText:
			if r.fits(len(n.text)) {
				r.out = append(r.out, n.text...)
			}
		case nodePrint:
			r.print(r.eval(n.value, false), n)
		case nodeIf:
			r.branch(n, r.eval(n.value, true).Truth() != n.negate)
		case nodeEach:
			r.each(n, r.eval(n.value, true))
		case nodeWith:
			r.with(n, r.eval(n.value, true))
		case nodeSection:
			switch v := r.eval(n.value, true); v.kind {
			case KindList:
				r.each(n, v)
			case KindMap:
				r.with(n, v)
			default:
				r.branch(n, v.Truth())
			}
		case nodePartial:
			r.call(n)
		}
	}
}

func (r *run) fits(bytes int) bool {
	if r.err == nil && len(r.out)+bytes > r.outMax {
		r.err = ErrOutputTooLong
	}
	return r.err == nil
}

// print appends v, escaped if the template says so.
func (r *run) print(v Value, n *node) {
	if v.kind == KindMap {
		r.refuse(n.value.source, "is a map and cannot be printed", false)
		return
	}
	if r.err != nil {
		return
	}
	start := len(r.out)
	if r.html && !n.raw && v.kind != KindNumber && v.kind != KindBool {
		if v.kind == KindString {
			r.out = appendEscaped(r.out, v.text)
		} else {
			r.out = appendEscaped(r.out, string(v.append(nil, listDepthMax, outputBytesMax)))
		}
	} else {
		r.out = v.append(r.out, listDepthMax, r.outMax)
	}
	if r.charge(len(r.out) - start) {
		r.fits(0)
	}
}

func (r *run) branch(n *node, holds bool) {
	if holds {
		r.nodes(n.body)
	} else {
		r.nodes(n.inverse)
	}
}

// eachItemsMax is how many items #each visits. Source: engagement 5.4.
const eachItemsMax = 15

func (r *run) each(n *node, v Value) {
	var names []string
	count := v.Len()
	switch {
	case v.kind == KindMap:
		names = v.more.fields.Names()
		count = len(names)
	case v.kind != KindList && v.Truth():
		count = 1 // a bare value is a list of one
	}
	if count == 0 {
		r.nodes(n.inverse)
		return
	}
	count = min(count, eachItemsMax)
	at := len(r.frames)
	for i := range count {
		f := frame{loop: true, index: i, last: count - 1}
		if v.kind == KindMap {
			f.key = names[i]
			f.value, _ = v.more.fields.Lookup(names[i : i+1])
		} else {
			f.value = v.At(i)
		}
		r.frames = append(r.frames, f)
		r.nodes(n.body)
		r.frames = r.frames[:at]
		if r.err != nil {
			return
		}
	}
}

func (r *run) with(n *node, v Value) {
	if !v.Truth() {
		r.nodes(n.inverse)
		return
	}
	r.frames = append(r.frames, frame{value: v})
	r.nodes(n.body)
	r.frames = r.frames[:len(r.frames)-1]
}

// call executes an inline partial.
func (r *run) call(n *node) {
	if r.depth == callDepthMax {
		r.err = ErrTooDeep
		return
	}
	r.depth++
	at := len(r.frames)
	var f frame
	if n.value != nil {
		f.value = r.eval(n.value, false)
	}
	if len(n.names) > 0 {
		f.names, f.values = n.names, make([]Value, len(n.values))
		for i := range n.values {
			f.values[i] = r.eval(&n.values[i], false)
		}
	}
	if n.value != nil || len(n.names) > 0 {
		f.transparent = n.value == nil
		r.frames = append(r.frames, f)
	}
	r.nodes(n.partial.body)
	r.frames = r.frames[:at]
	r.depth--
}

// eval returns the value of x. Unless quiet, a name without value is listed.
func (r *run) eval(x *expr, quiet bool) Value {
	if !r.step() {
		return Value{}
	}
	switch x.kind {
	case exprLiteral:
		return x.value
	case exprCall:
		return x.call.helper.inline(r, x.call, quiet)
	}
	v := r.resolve(x.path)
	if v.absent() {
		if !quiet {
			r.miss(x.path.name)
		}
		return Value{}
	}
	return v
}

// resolve finds p in the items, the Vars and the Defaults.
func (r *run) resolve(p *path) Value {
	if p.base == baseData {
		return r.loopValue(p)
	}
	v := r.find(p)
	if v.absent() && len(r.context.Defaults) > 0 && p.key != "" {
		text, ok := r.context.Defaults[p.key]
		if !ok && p.itemOf != "" {
			text, ok = r.context.Defaults[p.itemOf]
		}
		if ok {
			return String(text)
		}
	}
	return v
}

// find looks in the items from the inside out, then in the Vars.
func (r *run) find(p *path) Value {
	at := len(r.frames)
	if p.base == baseRoot {
		at = 0
	}
	for up := p.up; at > 0; at-- {
		f := &r.frames[at-1]
		if up > 0 {
			if !f.transparent {
				up--
			}
			continue
		}
		if f.transparent && p.base == baseThis {
			continue
		}
		if p.base == baseThis && len(p.names) == 0 {
			return f.value
		}
		for i, name := range f.names {
			if name == p.names[0] {
				return within(f.values[i], p.names[1:], p)
			}
		}
		if !f.transparent {
			if f.value.kind == KindMap || f.value.kind == KindList {
				if v := within(f.value, p.names, p); !v.absent() {
					return v
				}
			}
			if p.base == baseThis {
				return Value{}
			}
		}
	}
	if len(p.names) == 0 || r.vars == nil {
		return Value{}
	}
	return ask(r.vars, p.names, p)
}

// ask looks names up in vars, and takes a last index itself.
func ask(vars Vars, names []string, p *path) Value {
	if n := len(names) - 1; p.indexed && n > 0 {
		if v, ok := vars.Lookup(names[:n]); ok {
			if v.kind == KindMap {
				return within(v, names[n:], p)
			}
			return v.At(p.index)
		}
	}
	v, _ := vars.Lookup(names)
	return v
}

// within looks names up inside v; p is the path they end.
func within(v Value, names []string, p *path) Value {
	for len(names) > 0 {
		if v.kind == KindMap {
			return ask(v.more.fields, names, p)
		}
		index, ok := indexOf(names[0])
		if !ok {
			return Value{}
		}
		v, names = v.At(index), names[1:]
	}
	return v
}

// loopValue answers @index and its like from the loop p.up loops out.
func (r *run) loopValue(p *path) Value {
	up := p.up
	for i := len(r.frames) - 1; i >= 0; i-- {
		f := &r.frames[i]
		if !f.loop {
			continue
		}
		if up > 0 {
			up--
			continue
		}
		switch p.data {
		case dataIndex:
			return Number(float64(f.index))
		case dataKey:
			if f.key == "" {
				return Number(float64(f.index))
			}
			return String(f.key)
		case dataFirst:
			return Bool(f.index == 0)
		case dataLast:
			return Bool(f.index == f.last)
		}
	}
	return Value{}
}

// miss lists a name without value.
func (r *run) miss(name string) {
	if len(r.missing) < reportMax && !slices.Contains(r.missing, name) {
		r.missing = append(r.missing, name)
	}
}

// refuse lists a value that cannot be used, by its source, never by what it holds.
func (r *run) refuse(source, why string, quiet bool) {
	if quiet || len(r.unusable) >= reportMax || r.err != nil {
		return
	}
	if entry := quote(source) + " " + why; !slices.Contains(r.unusable, entry) {
		r.unusable = append(r.unusable, entry)
	}
}

// appendEscaped appends s with the signs escaped that Handlebars escapes.
func appendEscaped(dst []byte, s string) []byte {
	from := 0
	for i := range len(s) {
		var entity string
		switch s[i] {
		case '&':
			entity = "&amp;"
		case '<':
			entity = "&lt;"
		case '>':
			entity = "&gt;"
		case '"':
			entity = "&quot;"
		case '\'':
			entity = "&#x27;"
		case '`':
			entity = "&#x60;"
		case '=':
			entity = "&#x3D;"
		default:
			continue
		}
		dst = append(append(dst, s[from:i]...), entity...)
		from = i + 1
	}
	return append(dst, s[from:]...)
}
