package templates

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
)

// The arithmetic helpers. Whole numbers of up to 18 digits are exact; else the
// result is rounded to 8 decimals. Source: engagement 5.4.
var numberHelpers = []helper{
	arithmetic("add", func(a, b float64) float64 { return a + b }, func(a, b int64) (int64, bool) { return a + b, true }),
	arithmetic("subtract", func(a, b float64) float64 { return a - b }, func(a, b int64) (int64, bool) { return a - b, true }),
	arithmetic("multiply", func(a, b float64) float64 { return a * b }, func(a, b int64) (int64, bool) {
		// Whole operands are within 18 digits, so neither is the most negative number.
		product := a * b
		return product, a == 0 || product/a == b
	}),
	arithmetic("divide", func(a, b float64) float64 { return a / b }, func(a, b int64) (int64, bool) {
		if b == 0 || a%b != 0 {
			return 0, false
		}
		return a / b, true
	}),
	arithmetic("modulo", math.Mod, func(a, b int64) (int64, bool) {
		if b == 0 {
			return 0, false
		}
		return a % b, true
	}),
	rounding("ceiling", math.Ceil),
	rounding("floor", math.Floor),
	rounding("round", math.Round),
	{name: "ordinalize", min: 1, max: 1, inline: ordinalize},
}

const notNumber = "is not a number"

// operand is a number as arithmetic needs it.
type operand struct {
	float float64
	whole int64
	exact bool // whole holds it
}

// wholeDigitsMax is how many digits always fit into an int64.
const wholeDigitsMax = 18

func (r *run) operandOf(c *call, i int, quiet bool) (n operand, ok bool) {
	s, ok := r.textOf(c, i, quiet)
	if !ok {
		return n, false
	}
	d, ok := splitDecimal(s)
	if ok {
		n.float, _ = strconv.ParseFloat(strings.TrimSpace(s), 64)
		ok = !math.IsInf(n.float, 0)
	}
	if !ok {
		r.refuse(c.args[i].source, notNumber, quiet)
		return n, false
	}
	if d.fraction == "" && len(d.whole) <= wholeDigitsMax {
		if d.whole != "" {
			n.whole, _ = strconv.ParseInt(d.whole, 10, 64)
		}
		if d.negative {
			n.whole = -n.whole
		}
		n.exact = true
	}
	return n, true
}

func arithmetic(name string, float func(a, b float64) float64, whole func(a, b int64) (int64, bool)) helper {
	return helper{name: name, min: 2, max: 2, inline: func(r *run, c *call, quiet bool) Value {
		a, ok := r.operandOf(c, 0, quiet)
		if !ok {
			return Value{}
		}
		b, ok := r.operandOf(c, 1, quiet)
		if !ok {
			return Value{}
		}
		if a.exact && b.exact {
			if n, ok := whole(a.whole, b.whole); ok {
				return wholeNumber(n)
			}
		}
		result := Number(rounded(float(a.float, b.float)))
		if result.kind == KindNull {
			r.refuse(c.args[1].source, "gives "+name+" no result", quiet)
		}
		return result
	}}
}

// decimals is how many places arithmetic keeps. Source: engagement 5.4.
const decimals = 8

// rounded returns f to 8 decimals; what is not finite stays so.
func rounded(f float64) float64 {
	var space [32]byte
	n, err := strconv.ParseFloat(string(strconv.AppendFloat(space[:0], f, 'f', decimals, 64)), 64)
	if err != nil {
		return math.NaN()
	}
	return n + 0 // never minus zero
}

func wholeNumber(n int64) Value {
	v := Number(float64(n))
	v.text = strconv.FormatInt(n, 10)
	return v
}

// rounding makes a helper that gives a whole number. round goes away from zero
// at one half.
func rounding(name string, f func(float64) float64) helper {
	return helper{name: name, min: 1, max: 1, inline: func(r *run, c *call, quiet bool) Value {
		n, ok := r.operandOf(c, 0, quiet)
		switch {
		case !ok:
			return Value{}
		case n.exact:
			return wholeNumber(n.whole)
		}
		return Number(f(n.float) + 0)
	}}
}

// ordinalize adds st, nd, rd or th to a whole number.
func ordinalize(r *run, c *call, quiet bool) Value {
	n, ok := r.operandOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	if !n.exact {
		r.refuse(c.args[0].source, "is not a whole number", quiet)
		return Value{}
	}
	tens, ones := n.whole%100, n.whole%10
	if n.whole < 0 {
		tens, ones = -tens, -ones
	}
	suffix := "th"
	if tens < 11 || tens > 13 {
		switch ones {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return r.result(strconv.FormatInt(n.whole, 10) + suffix)
}

// The encoding helpers. Digests are lower case hexadecimal, of the UTF-8 text.
// Source: engagement 5.4.
var digestHelpers = []helper{
	{name: "encode64", min: 1, max: 1, inline: mapped(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })},
	{name: "decode64", min: 1, max: 1, inline: decode64},
	{name: "md5", min: 1, max: 1, inline: mapped(func(s string) string {
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	})},
	{name: "sha256", min: 1, max: 1, inline: mapped(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	})},
	{name: "sha512", min: 1, max: 1, inline: mapped(func(s string) string {
		sum := sha512.Sum512([]byte(s))
		return hex.EncodeToString(sum[:])
	})},
	{name: "uuid", inline: func(r *run, _ *call, quiet bool) Value {
		if r.context.UUID == nil {
			r.refuse("uuid", "has no source of identifiers here", quiet)
			return Value{}
		}
		return r.result(r.context.UUID())
	}},
}

// decode64 reads base64, padded or not; bytes that are not UTF-8 become U+FFFD.
func decode64(r *run, c *call, quiet bool) Value {
	s, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(s), "="))
	if err != nil {
		r.refuse(c.args[0].source, "is not base64", quiet)
		return Value{}
	}
	return r.result(strings.ToValidUTF8(string(raw), "\ufffd"))
}

// UUIDsFrom returns a source for [Context].UUID that gives the same identifiers
// in the same order for the same seed, such as a message id, so that a message
// rendered again is the same. They have the form of random (version 4) UUIDs.
// The source is for one execution at a time.
func UUIDsFrom(seed string) func() string {
	n := uint64(0)
	return func() string {
		n++
		sum := sha256.Sum256(strconv.AppendUint(append([]byte(seed), 0), n, 10))
		id := sum[:16]
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		text := hex.EncodeToString(id)
		return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
	}
}
