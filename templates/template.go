package templates

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A Template is compiled text, ready to be executed any number of times by any
// number of goroutines.
type Template struct {
	body      []node
	html      bool
	variables []string
	textBytes int // literal bytes outside partials: a first guess at the output's size
}

// Options say how a text is compiled.
type Options struct {
	// HTML escapes what {{ }} renders. Set it for an email's HtmlPart only.
	HTML bool
}

// A Context carries what an execution needs besides names, and what must be the
// same when a message is rendered again.
type Context struct {
	// Now is the time that the helper now shows, and that two-digit years are
	// read by. A zero Now makes the helper's use an Unusable entry.
	Now time.Time

	// UUID answers the helper uuid, once for each use, in order; see [UUIDsFrom].
	// A nil UUID makes the helper's use an Unusable entry.
	UUID func() string

	// Defaults are the template's default substitutions; nil means none.
	Defaults Defaults
}

// A Result says what an execution could not fill in. Both lists hold at most 10
// entries, each once, and no values: neither is a secret.
type Result struct {
	// Missing names what has no value, as the template writes it.
	Missing []string

	// Unusable holds a sentence for each value that a helper could not use.
	Unusable []string
}

// Complete reports that everything was filled in.
func (r Result) Complete() bool { return len(r.Missing) == 0 && len(r.Unusable) == 0 }

// Bounds on one execution.
const (
	outputBytesMax = 1 << 20
	workMax        = 250_000
	callDepthMax   = 32
	reportMax      = 10
)

// What ends an execution early.
var (
	ErrOutputTooLong = fmt.Errorf("templates: the output is longer than %d bytes", outputBytesMax)
	ErrTooMuchWork   = errors.New("templates: the template takes too much work to render")
	ErrTooDeep       = fmt.Errorf("templates: partials call each other more than %d deep", callDepthMax)
)

// Variables lists the names the template may ask for, in order, each once, as
// paths in template notation. Names used within #each and #with are listed as
// written, for only an execution knows whether the item has them.
func (t *Template) Variables() []string { return slices.Clone(t.variables) }

// Append executes t and appends the output to dst, which it returns even with an
// error, then cut back to what it held. vars may be nil.
func (t *Template) Append(dst []byte, vars Vars, c Context) ([]byte, Result, error) {
	r := runs.Get().(*run)
	start := len(dst)
	r.begin(t, slices.Grow(dst, t.textBytes), vars, c)
	r.nodes(t.body)
	out, result, err := r.out, Result{Missing: r.missing, Unusable: r.unusable}, r.err
	r.end()
	runs.Put(r)
	if err != nil {
		return out[:start], Result{}, err
	}
	return out, result, nil
}

// Execute writes the output to w, in one Write, unless the execution fails.
func (t *Template) Execute(w io.Writer, vars Vars, c Context) (Result, error) {
	space := buffers.Get().(*[]byte)
	defer buffers.Put(space)
	out, result, err := t.Append((*space)[:0], vars, c)
	*space = out
	if err != nil {
		return Result{}, err
	}
	if _, err := w.Write(out); err != nil {
		return result, fmt.Errorf("write rendered template: %w", err)
	}
	return result, nil
}

var (
	runs    = sync.Pool{New: func() any { return new(run) }}
	buffers = sync.Pool{New: func() any { return new([]byte) }}
)
