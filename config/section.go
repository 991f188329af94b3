package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a node of the document together with the way to it, for errors.
type value struct {
	report *report
	path   string
	*node
}

func (v value) wrong(format string, args ...any) {
	v.report.add(v.line, v.path, format, args...)
}

// section is a mapping with known keys.
type section struct {
	report *report
	path   string
	line   int
	fields map[string]field
	meant  map[string]bool // keys that unknown ones were taken for: they are not missing as well
}

// section opens a mapping with these keys, and reports all others.
func (v value) section(known []string) (*section, bool) {
	if v.kind != kindMapping {
		v.wrong("want keys and values, such as {%s: …}; got %s", known[0], v.node)
		return nil, false
	}
	s := v.open()
	s.know(known)
	return s, true
}

// open reports keys given twice; which are known is for know to say.
func (v value) open() *section {
	s := &section{report: v.report, path: v.path, line: v.line, fields: make(map[string]field)}
	for _, f := range v.node.fields {
		if first, twice := s.fields[f.key]; twice {
			v.report.add(f.line, s.child(f.key), "given twice, first on line %d: keep one", first.line)
			continue
		}
		s.fields[f.key] = f
	}
	return s
}

// know reports the keys that are not among known.
func (s *section) know(known []string) {
	s.meant = make(map[string]bool)
	for key, f := range s.fields {
		if slices.Contains(known, key) {
			continue
		}
		near, hint := suggestion(key, known)
		s.meant[near] = true
		s.report.add(f.line, s.child(key), "unknown key: %s", hint)
	}
}

// foreign reports and drops the keys that only the other kind of file has.
func (s *section) foreign(known, others []string, why string) {
	for _, key := range others {
		if f, ok := s.fields[key]; ok && !slices.Contains(known, key) {
			s.report.add(f.line, s.child(key), "%s", why)
			delete(s.fields, key)
		}
	}
}

// child is the path of a key.
func (s *section) child(key string) string {
	if !plainKey(key) {
		key = quote(key)
	}
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

func plainKey(key string) bool {
	for _, c := range []byte(key) {
		if c != '_' && c != '-' && !('a' <= c|0x20 && c|0x20 <= 'z') && !('0' <= c && c <= '9') {
			return false
		}
	}
	return key != "" && len(key) <= maxQuoted
}

func (s *section) has(key string) bool {
	_, ok := s.fields[key]
	return ok
}

func (s *section) lineOf(key string) int {
	if f, ok := s.fields[key]; ok {
		return f.line
	}
	return s.line
}

// get returns the value of a key, if the file gives one. A key without a value is reported.
func (s *section) get(key string) (value, bool) {
	f, ok := s.fields[key]
	if !ok {
		return value{}, false
	}
	v := value{report: s.report, path: s.child(key), node: f.value}
	if f.value.kind == kindNull {
		v.wrong("has no value: give one, or remove the key")
		return value{}, false
	}
	return v, true
}

// need is get for a key that must be there; its absence is reported with what it is for.
func (s *section) need(key, purpose string) (value, bool) {
	if !s.has(key) {
		if !s.meant[key] {
			s.report.add(s.line, s.child(key), "missing: %s", purpose)
		}
		return value{}, false
	}
	return s.get(key)
}

// text reads any scalar as the file writes it: a password of digits needs no quotes.
func (v value) text() (string, bool) {
	switch v.kind {
	case kindText, kindNumber, kindBool:
	default:
		v.wrong("want text, got %s", v.node)
		return "", false
	}
	if v.node.text == "" {
		v.wrong("is empty: give a value, or remove the key")
		return "", false
	}
	return v.node.text, true
}

func (v value) boolean() (b, ok bool) {
	if v.kind != kindBool {
		v.wrong("want true or false, got %s", v.node)
		return false, false
	}
	return v.node.text == "true", true
}

func (v value) integer(lo, hi int64, unit string) (int64, bool) {
	n, err := strconv.ParseInt(v.node.text, 10, 64)
	if v.kind != kindNumber || err != nil {
		v.wrong("want a whole number of %s, without quotes or unit; got %s", unit, v.node)
		return 0, false
	}
	if n < lo || n > hi {
		v.wrong("%d is out of range: want %d to %d %s", n, lo, hi, unit)
		return 0, false
	}
	return n, true
}

// A bound is a key that says how many of something there may be at a time.
type bound struct {
	key, unit string
	value     *int
}

// maxBound is more than a process can hold of anything.
const maxBound = 1 << 20

// bounds reads those keys that the file gives.
func (s *section) bounds(all ...bound) {
	for _, b := range all {
		if v, ok := s.get(b.key); ok {
			n, _ := v.integer(1, maxBound, b.unit)
			*b.value = int(n)
		}
	}
}

// duration reads 5m, 1m30s, or a whole number of seconds.
func (v value) duration(lo, hi time.Duration) (time.Duration, bool) {
	const want = "want a duration such as 90s or 5m, or a whole number of seconds"
	var d time.Duration
	switch v.kind {
	case kindNumber:
		n, err := strconv.ParseInt(v.node.text, 10, 64)
		if err != nil {
			v.wrong("not a duration: %s; got %s", want, v.node)
			return 0, false
		}
		// Beyond what a Duration can hold is out of range as surely as a year is.
		const year = 365 * 24 * 3600
		d = time.Duration(min(max(n, -year), year)) * time.Second
	case kindText:
		var err error
		if d, err = time.ParseDuration(v.node.text); err != nil {
			v.wrong("not a duration: %s; got %s", want, quote(v.node.text))
			return 0, false
		}
	default:
		v.wrong("not a duration: %s; got %s", want, v.node)
		return 0, false
	}
	if d < lo || d > hi {
		v.wrong("%s is out of range: want %s to %s", quote(v.node.text), plain(lo), plain(hi))
		return 0, false
	}
	return d, true
}

// plain writes a duration as people do: 8m, not 8m0s.
func plain(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// list returns the entries of a list. The example shows what a list looks like here.
func (v value) list(example string) []value {
	if v.kind != kindList {
		v.wrong("want a list, such as [%s]; got %s", example, v.node)
		return nil
	}
	entries := make([]value, 0, len(v.items))
	for i, n := range v.items {
		e := value{report: v.report, path: fmt.Sprintf("%s[%d]", v.path, i), node: n}
		if n.kind == kindNull {
			e.wrong("has no value: give one, or remove the entry")
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

// suggestion finds the known key nearest to a wrong one, if one is near, and says it in words.
func suggestion(key string, known []string) (near, hint string) {
	if m, ok := misplaced[key]; ok && slices.Contains(known, m.want) {
		return m.want, m.why + ": want " + m.want
	}
	least := len(key)/3 + 2
	for _, k := range known {
		d := distance(key, k)
		if strings.HasPrefix(k, key) && len(key) >= 3 {
			d = min(d, 2)
		}
		if d < least {
			near, least = k, d
		}
	}
	if near != "" {
		return near, "did you mean " + near + "?"
	}
	return "", "known here are " + strings.Join(known, ", ")
}

// misplaced are keys that people try, of what must not stand in this file.
var misplaced = map[string]struct{ want, why string }{
	"private_key":    {"private_key_file", "a private key stands in a file of its own"},
	"pre_shared_key": {"pre_shared_key_file", "a pre-shared key stands in a file of its own"},
}

// distance is the number of letters to insert, remove, change or swap with their neighbour to
// make b of a (optimal string alignment). Long strings are as far as they are long.
func distance(a, b string) int {
	if len(a) > maxQuoted || len(b) > maxQuoted {
		return max(len(a), len(b))
	}
	var rows [3][maxQuoted + 1]int // of a[:i-2], a[:i-1], a[:i]
	for j := range rows[1] {
		rows[2][j] = j
	}
	for i := 1; i <= len(a); i++ {
		rows[0], rows[1] = rows[1], rows[2]
		rows[2][0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[1][j]+1, rows[2][j-1]+1, rows[1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[0][j-2]+1)
			}
			rows[2][j] = d
		}
	}
	return rows[2][len(b)]
}
