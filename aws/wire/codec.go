package wire

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// decode reads and validates the input of the matched operation. What the body
// is labelled as (Content-Type) is not asked: it is read as what the protocol
// says it must be.
func (m *Match) decode(mt *mount, r *Request) (any, error) {
	in := reflect.New(m.Op.in)
	var err error
	if m.Protocol == AWSQuery {
		d := &formReader{}
		d.structure(mt.in, m.req.form, in.Elem())
		err = d.fault()
		if d.structures > structuresMax {
			err = aws.TooLarge("the request has more than %d structures", structuresMax)
		}
	} else {
		d := newReader(string(r.Body), true)
		defer d.release()
		err = d.request(mt.in, m, r, in.Elem())
	}
	if err != nil {
		return nil, err
	}
	return in.Interface(), nil
}

// request reads what is bound to the path, the query and the headers, then the
// body.
func (d *reader) request(p *plan, m *Match, r *Request, v reflect.Value) error {
	if len(p.bound) > 0 {
		q, err := parseQuery(r.RawQuery, p)
		if err != nil {
			return err
		}
		for _, i := range p.bound {
			f := &p.fields[i]
			d.push(step{name: f.m.Name})
			d.bindField(f, m, r, q, v.Field(f.index))
			d.pop()
		}
	}
	target, tv, pm := p, v, (*Member)(nil)
	if p.payload >= 0 {
		f := &p.fields[p.payload]
		nv := reflect.New(f.rt)
		v.Field(f.index).Set(nv)
		target, tv, pm = f.plan, nv.Elem(), f.m
	}
	if len(target.body) == 0 && p.payload < 0 {
		return d.fault() // a body is not expected; whatever there is, is not read
	}
	if d.peek() == 0 && d.pos == len(d.s) {
		d.absent(target)
		return d.fault()
	}
	return d.document(target, pm, tv)
}

func (d *reader) bindField(f *field, m *Match, r *Request, q map[string][]string, v reflect.Value) {
	var texts []string
	switch f.m.In {
	case InLabel:
		for i, n := range m.names {
			if n == f.m.Name {
				texts = m.labels[i : i+1]
			}
		}
	case InQuery:
		texts = q[f.m.bind()]
	case InHeader:
		texts = r.Header.Values(f.m.bind())
	}
	if f.kind == List {
		if len(texts) == 0 {
			if f.m.Required {
				d.violate("required but missing")
			}
			return
		}
		l := reflect.MakeSlice(f.rt, len(texts), len(texts))
		em := elementOf(f.m)
		for i, s := range texts {
			d.scalar(f.elem, em, s, l.Index(i))
		}
		v.Set(l)
		d.rules(f.plan, f.m, v)
		return
	}
	// An empty value in the query is as good as none.
	if len(texts) == 0 || texts[len(texts)-1] == "" && f.m.In != InLabel {
		if f.m.Required && !f.m.Open {
			d.violate("required but missing")
		}
		return
	}
	s := texts[len(texts)-1]
	if !f.ptr {
		d.scalar(f.plan, f.m, s, v)
		return
	}
	nv := reflect.New(f.rt)
	if d.scalar(f.plan, f.m, s, nv.Elem()) {
		v.Set(nv)
	}
}

// queryPairsMax bounds the parameters of a query string.
const queryPairsMax = 1_000

// parseQuery collects the values of the parameters that the input binds.
func parseQuery(raw string, p *plan) (map[string][]string, error) {
	if raw == "" {
		return nil, nil
	}
	if strings.Count(raw, "&") >= queryPairsMax {
		return nil, aws.Invalid("the query has more than %d parameters", queryPairsMax)
	}
	out := map[string][]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, err := queryPair(pair)
		if err != nil {
			return nil, err
		}
		for _, i := range p.bound {
			if f := &p.fields[i]; f.m.In == InQuery && f.m.bind() == name {
				out[name] = append(out[name], value)
			}
		}
	}
	return out, nil
}

func queryPair(pair string) (name, value string, err error) {
	k, v, _ := strings.Cut(pair, "=")
	if name, err = url.QueryUnescape(k); err != nil {
		return "", "", aws.Invalid("the query holds an invalid percent-encoding")
	}
	if value, err = url.QueryUnescape(v); err != nil {
		return "", "", aws.InvalidMember(printable(name), "%s: invalid percent-encoding", printable(name))
	}
	return name, strings.ToValidUTF8(value, "\ufffd"), nil
}

// lastQuery returns the value of a query parameter, as decode would see it.
func lastQuery(raw, want string) (value string, ok bool) {
	for pair := range strings.SplitSeq(raw, "&") {
		if name, v, err := queryPair(pair); err == nil && name == want {
			value, ok = v, true
		}
	}
	return value, ok
}

var jsonTypes = map[Protocol]string{
	RestJSON1: "application/json",
	AWSJSON10: "application/x-amz-json-1.0",
	AWSJSON11: "application/x-amz-json-1.1",
}

// encode writes the output of the matched operation.
func (m *Match) encode(mt *mount, out any, id string) (*Response, error) {
	v := reflect.ValueOf(out).Elem()
	if m.Protocol == AWSQuery {
		w := &xmlWriter{}
		w.b = append(w.b, '<')
		w.b = append(w.b, m.Op.Name...)
		w.b = append(w.b, `Response xmlns="`...)
		w.text(m.Service.XMLNamespace)
		w.b = append(w.b, `">`...)
		if m.Op.Output != EmptySchema {
			w.open(m.Op.Name + "Result")
			if err := w.members(mt.out, v); err != nil {
				return nil, fmt.Errorf("encode output: %w", err)
			}
			w.close(m.Op.Name + "Result")
		}
		w.open("ResponseMetadata")
		w.leaf("RequestId", id)
		w.close("ResponseMetadata")
		w.close(m.Op.Name + "Response")
		return &Response{Status: m.Op.Status, Header: header(id, "text/xml"), Body: w.b}, nil
	}
	resp := &Response{Status: m.Op.Status}
	if m.Op.Status == 204 {
		resp.Header = header(id, "")
		return resp, nil
	}
	resp.Header = header(id, jsonTypes[m.Protocol])
	w := writer{b: make([]byte, 0, 512)}
	p := mt.out
	for _, i := range p.bound {
		f := &p.fields[i]
		fv := v.Field(f.index)
		if f.ptr {
			if fv.IsNil() {
				continue
			}
			fv = fv.Elem()
		} else if fv.IsZero() {
			continue
		}
		s, err := formatScalar(f.plan, fv)
		if err != nil {
			return nil, fmt.Errorf("encode header %s: %w", f.m.bind(), err)
		}
		resp.Header.Set(f.m.bind(), s)
	}
	if p.payload >= 0 {
		f := &p.fields[p.payload]
		fv := v.Field(f.index)
		if fv.IsNil() {
			// A room that has nothing to say says an empty object.
			resp.Body = []byte("{}")
			return resp, nil
		}
		p, v = f.plan, fv.Elem()
	}
	if err := w.structure(p, v, false); err != nil {
		return nil, fmt.Errorf("encode output: %w", err)
	}
	resp.Body = w.b
	return resp, nil
}
