package templates

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// This file shows and reads dates by the pattern letters of Java's
// SimpleDateFormat, in US English, for the Gregorian calendar. Weeks begin on
// Sunday and week 1 holds January 1, as in the US locale.

// Bounds on a pattern, in bytes and repetitions of one letter.
const (
	patternLenMax = 256
	letterRunMax  = 32
)

func isPatternLetter(c rune) bool { return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' }

// A field is one piece of a pattern: a run of one letter, or literal text.
type field struct {
	letter  byte // 0 for literal text
	width   int
	literal string
}

// nextField reads the first piece of pattern; message says what is wrong.
func nextField(pattern string) (f field, rest, message string) {
	c := pattern[0]
	switch {
	case isPatternLetter(rune(c)):
		n := 1
		for n < len(pattern) && pattern[n] == c {
			n++
		}
		if n > letterRunMax {
			return f, "", fmt.Sprintf("the date format repeats %q more than %d times", c, letterRunMax)
		}
		return field{letter: c, width: n}, pattern[n:], ""
	case strings.HasPrefix(pattern, "''"):
		return field{literal: "'"}, pattern[2:], ""
	case c == '\'':
		// Quoted text; '' inside it is a quote.
		var text strings.Builder
		for i := 1; i < len(pattern); i++ {
			if pattern[i] != '\'' {
				text.WriteByte(pattern[i])
				continue
			}
			if !strings.HasPrefix(pattern[i+1:], "'") {
				return field{literal: text.String()}, pattern[i+1:], ""
			}
			text.WriteByte('\'')
			i++
		}
		return f, "", "the date format has an open quote"
	}
	n := strings.IndexFunc(pattern, func(c rune) bool { return isPatternLetter(c) || c == '\'' })
	if n < 0 {
		n = len(pattern)
	}
	return field{literal: pattern[:n]}, pattern[n:], ""
}

// appendPattern shows t; message says what is wrong with the pattern.
func appendPattern(dst []byte, pattern string, t time.Time) (out []byte, message string) {
	if len(pattern) > patternLenMax {
		return dst, fmt.Sprintf("the date format is longer than %d bytes", patternLenMax)
	}
	for pattern != "" {
		var f field
		if f, pattern, message = nextField(pattern); message != "" {
			return dst, message
		}
		if f.letter == 0 {
			dst = append(dst, f.literal...)
			continue
		}
		var ok bool
		if dst, ok = appendField(dst, f, t); !ok {
			return dst, fmt.Sprintf("%q is not a date format letter", f.letter)
		}
	}
	return dst, ""
}

func appendField(dst []byte, f field, t time.Time) ([]byte, bool) {
	number := func(n int) ([]byte, bool) { return appendPadded(dst, n, f.width), true }
	switch f.letter {
	case 'G':
		if t.Year() <= 0 {
			return append(dst, "BC"...), true
		}
		return append(dst, "AD"...), true
	case 'y':
		return appendYear(dst, t.Year(), f.width), true
	case 'Y':
		year, _ := usWeek(t)
		return appendYear(dst, year, f.width), true
	case 'M', 'L':
		switch {
		case f.width >= 4:
			return append(dst, t.Month().String()...), true
		case f.width == 3:
			return append(dst, t.Month().String()[:3]...), true
		}
		return number(int(t.Month()))
	case 'w':
		_, week := usWeek(t)
		return number(week)
	case 'W':
		first := t.AddDate(0, 0, 1-t.Day())
		return number((t.Day()-1+int(first.Weekday()))/7 + 1)
	case 'D':
		return number(t.YearDay())
	case 'd':
		return number(t.Day())
	case 'F':
		return number((t.Day()-1)/7 + 1)
	case 'E':
		name := t.Weekday().String()
		if f.width < 4 {
			name = name[:3]
		}
		return append(dst, name...), true
	case 'u':
		return number((int(t.Weekday())+6)%7 + 1)
	case 'a':
		if t.Hour() < 12 {
			return append(dst, "AM"...), true
		}
		return append(dst, "PM"...), true
	case 'H':
		return number(t.Hour())
	case 'k':
		return number((t.Hour()+23)%24 + 1)
	case 'K':
		return number(t.Hour() % 12)
	case 'h':
		return number((t.Hour()+11)%12 + 1)
	case 'm':
		return number(t.Minute())
	case 's':
		return number(t.Second())
	case 'S':
		return number(t.Nanosecond() / int(time.Millisecond))
	case 'z':
		name, offset := t.Zone()
		if name == "" || name[0] == '+' || name[0] == '-' {
			return appendOffset(append(dst, "GMT"...), offset, ":", true), true
		}
		return append(dst, name...), true
	case 'Z':
		_, offset := t.Zone()
		return appendOffset(dst, offset, "", true), true
	case 'X':
		_, offset := t.Zone()
		if offset == 0 {
			return append(dst, 'Z'), f.width <= 3
		}
		separator := ""
		if f.width == 3 {
			separator = ":"
		}
		return appendOffset(dst, offset, separator, f.width > 1), f.width <= 3
	}
	return dst, false
}

func appendPadded(dst []byte, n, width int) []byte {
	var space [24]byte
	text := strconv.AppendInt(space[:0], int64(n), 10)
	for i := len(text); i < width; i++ {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

// appendYear shows two digits for yy, and the whole year else.
func appendYear(dst []byte, year, width int) []byte {
	if year <= 0 {
		year = 1 - year // the year before Christ
	}
	if width == 2 {
		return appendPadded(dst, year%100, 2)
	}
	return appendPadded(dst, year, width)
}

// appendOffset shows an offset from UTC in seconds as +hh, +hhmm or +hh:mm.
func appendOffset(dst []byte, offset int, separator string, minutes bool) []byte {
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = appendPadded(append(dst, sign), offset/3600, 2)
	if minutes {
		dst = appendPadded(append(dst, separator...), offset/60%60, 2)
	}
	return dst
}

// usWeek returns t's week and the year that week belongs to.
func usWeek(t time.Time) (year, week int) {
	year = t.Year()
	newYear := time.Date(year+1, time.January, 1, 0, 0, 0, 0, time.UTC)
	today := time.Date(year, t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	if today.AddDate(0, 0, 6-int(today.Weekday())).Compare(newYear) >= 0 {
		return year + 1, 1
	}
	first := time.Date(year, time.January, 1, 0, 0, 0, 0, time.UTC)
	return year, (t.YearDay()-1+int(first.Weekday()))/7 + 1
}

// readable says what is wrong with a pattern for reading; "" if nothing.
func readable(pattern string) string {
	if len(pattern) > patternLenMax {
		return fmt.Sprintf("the date format is longer than %d bytes", patternLenMax)
	}
	for pattern != "" {
		f, rest, message := nextField(pattern)
		if message != "" {
			return message
		}
		if f.letter != 0 && strings.IndexByte("GyMLdDEuaHkKhmsSzZX", f.letter) < 0 {
			return fmt.Sprintf("dates cannot be read by the letter %q", f.letter)
		}
		pattern = rest
	}
	return ""
}

// A reading is a date while its fields are read.
type reading struct {
	year, month, day, yearDay   int
	hour, minute, second, milli int
	halfHour                    int // 0-11, with afternoon; -1 if not given
	afternoon, before           bool
	zone                        *time.Location
	text                        string
	dayGiven                    bool
}

// readPattern reads text by pattern. Fields that the pattern lacks are those of
// 1970-01-01T00:00. Text after the date is ignored, as SimpleDateFormat does;
// out-of-range fields are refused, which it does not.
func readPattern(text, pattern string, zone *time.Location, now time.Time) (time.Time, bool) {
	if len(pattern) > patternLenMax {
		return time.Time{}, false
	}
	d := reading{year: 1970, month: 1, day: 1, halfHour: -1, zone: zone, text: text}
	for pattern != "" {
		f, rest, message := nextField(pattern)
		if message != "" {
			return time.Time{}, false
		}
		pattern = rest
		if f.letter == 0 {
			var ok bool
			if d.text, ok = strings.CutPrefix(d.text, f.literal); !ok {
				return time.Time{}, false
			}
			continue
		}
		// Where digits follow digits, each field takes just its own width.
		adjacent := pattern != "" && isPatternLetter(rune(pattern[0])) && numericLetter(pattern)
		if !d.field(f, adjacent, now) {
			return time.Time{}, false
		}
	}
	return d.time()
}

func numericLetter(pattern string) bool {
	f, _, message := nextField(pattern)
	return message == "" && (strings.IndexByte("ydDuHkKhmsS", f.letter) >= 0 ||
		(f.letter == 'M' || f.letter == 'L') && f.width < 3)
}

func (d *reading) field(f field, adjacent bool, now time.Time) (ok bool) {
	widthMax := 9
	if adjacent {
		widthMax = f.width
	}
	d.text = strings.TrimLeft(d.text, " ")
	number := func(into *int, least, most int) bool {
		n := min(digits(d.text), widthMax)
		if n == 0 {
			return false
		}
		value, err := strconv.Atoi(d.text[:n])
		d.text = d.text[n:]
		*into = value
		return err == nil && value >= least && value <= most
	}
	switch f.letter {
	case 'G':
		if d.word("BC") {
			d.before = true
			return true
		}
		return d.word("AD")
	case 'y':
		before := len(d.text)
		if !number(&d.year, 0, 9999) {
			return false
		}
		if f.width <= 2 && before-len(d.text) == 2 {
			d.year = century(d.year, now)
		}
		return true
	case 'M', 'L':
		if f.width < 3 {
			return number(&d.month, 1, 12)
		}
		for m := time.January; m <= time.December; m++ {
			if name := m.String(); d.word(name) || m == time.September && d.word("Sept") || d.word(name[:3]) {
				d.month = int(m)
				return true
			}
		}
		return false
	case 'd':
		d.dayGiven = true
		return number(&d.day, 1, 31)
	case 'D':
		return number(&d.yearDay, 1, 366)
	case 'E':
		for day := time.Sunday; day <= time.Saturday; day++ {
			if name := day.String(); d.word(name) || d.word(name[:3]) {
				return true
			}
		}
		return false
	case 'u':
		var ignored int
		return number(&ignored, 1, 7)
	case 'a':
		if d.word("PM") {
			d.afternoon = true
			return true
		}
		return d.word("AM")
	case 'H':
		return number(&d.hour, 0, 23)
	case 'k':
		ok = number(&d.hour, 1, 24)
		d.hour %= 24
		return ok
	case 'K':
		return number(&d.halfHour, 0, 11)
	case 'h':
		ok = number(&d.halfHour, 1, 12)
		d.halfHour %= 12
		return ok
	case 'm':
		return number(&d.minute, 0, 59)
	case 's':
		return number(&d.second, 0, 59)
	case 'S':
		return number(&d.milli, 0, 999)
	case 'z', 'Z', 'X':
		return d.readZone()
	}
	return false
}

// word accepts a word in any case.
func (d *reading) word(w string) bool {
	if len(d.text) < len(w) || !strings.EqualFold(d.text[:len(w)], w) {
		return false
	}
	d.text = d.text[len(w):]
	return true
}

// century gives a two-digit year within 80 years before and 20 after now.
func century(year int, now time.Time) int {
	if now.IsZero() {
		return 2000 + year
	}
	last := now.Year() + 20
	year += last - last%100
	if year > last {
		year -= 100
	}
	return year
}

// readZone reads Z, ±hh, ±hhmm, ±hh:mm, GMT±…, or a zone's name.
func (d *reading) readZone() bool {
	n := strings.IndexFunc(d.text, func(c rune) bool {
		return c == utf8.RuneError || !isPatternLetter(c) && !(c >= '0' && c <= '9') && !strings.ContainsRune("+-:/_", c)
	})
	if n < 0 {
		n = len(d.text)
	}
	name := d.text[:n]
	d.text = d.text[n:]
	if name == "Z" {
		name = "UTC"
	} else if name != "" && (name[0] == '+' || name[0] == '-') {
		name = "GMT" + name
	}
	if name == "" {
		return false
	}
	var ok bool
	d.zone, ok = zoneNamed(name)
	return ok
}

func (d *reading) time() (time.Time, bool) {
	if d.halfHour >= 0 {
		d.hour = d.halfHour
		if d.afternoon {
			d.hour += 12
		}
	}
	year := d.year
	if d.before {
		year = 1 - year
	}
	month, day := time.Month(d.month), d.day
	if d.yearDay > 0 && !d.dayGiven {
		month, day = time.January, d.yearDay
	} else if last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day(); day > last {
		return time.Time{}, false
	}
	return time.Date(year, month, day, d.hour, d.minute, d.second, d.milli*int(time.Millisecond), d.zone), true
}
