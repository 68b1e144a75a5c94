package events

import (
	"math"
	"strconv"

	"github.com/everpoint/everpoint/aws/wire"
)

// appendNumber writes v as a JSON number that shows it is not an integer's
// type: 3.0, 1e+21. What JSON cannot write becomes 0.0; the wire lets none in.
func appendNumber(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return append(b, '0', '.', '0')
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return append(strconv.AppendInt(b, int64(v), 10), '.', '0')
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// appendMember writes a member by its key, which brings what stands before it;
// nothing when the value is empty.
func appendMember(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return wire.AppendString(append(b, key...), value)
}

// uncomma takes away the comma at start, if anything was written there.
func uncomma(b []byte, start int) []byte {
	if len(b) == start {
		return b
	}
	return append(b[:start], b[start+1:]...)
}
