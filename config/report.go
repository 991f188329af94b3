package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one thing that is wrong in a configuration.
type Error struct {
	File string
	Line int    // from 1; 0: the file as a whole
	Path string // such as peers[0].public_key; empty: no key in particular
	Msg  string // what is wrong, and what would be right
}

// Error returns one line: "adit.yaml:7: peers[0].public_key: not a valid key: …".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(oneLine(e.File))
	if e.Line > 0 {
		b.WriteString(":" + strconv.Itoa(e.Line))
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	b.WriteString(": " + e.Msg)
	return b.String()
}

// Errors is all that is wrong in one file, in the order of its lines, at least one.
type Errors []*Error

// maxPrinted errors are told; who has more is better served by repairing these first.
const maxPrinted = 10

// Error returns one line for each error, at most 10, and one that counts the rest.
func (es Errors) Error() string {
	var lines []string
	for i, e := range es {
		if i == maxPrinted {
			atLeast := ""
			if len(es) == maxCollected {
				atLeast = "at least "
			}
			lines = append(lines, fmt.Sprintf("%s: and %s%d more", oneLine(e.File), atLeast, len(es)-i))
			break
		}
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors one by one, for errors.As.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// maxCollected bounds the memory that a large and wholly wrong file can cost.
const maxCollected = 1000

// report collects what is wrong in one file.
type report struct {
	file  string
	loose error // why others than the owner can read the file; nil: they cannot
	errs  Errors
}

func (r *report) add(line int, path, format string, args ...any) {
	if len(r.errs) < maxCollected {
		r.errs = append(r.errs, &Error{File: r.file, Line: line, Path: path, Msg: fmt.Sprintf(format, args...)})
	}
}

// err returns all that was added, by line, or nil.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Path, b.Path))
	})
	return r.errs
}

// resolve makes the path of a key file relative to the folder of the configuration.
func (r *report) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(r.file), path)
}

// maxQuoted is how much of a wrong value an error repeats.
const maxQuoted = 60

// quote shows a value from the file inside an error: short and on one line.
func quote(s string) string {
	if len(s) > maxQuoted {
		cut := maxQuoted
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strconv.Quote(s)
}

// oneLine keeps control characters of a file name or a foreign error from breaking the line.
func oneLine(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}
