package stage

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// A Table is lines of cells of text, the first its head. The columns from Right on stand at the right, as figures do; 0: none.
type Table struct {
	Lines [][]string
	Right int
}

// right reports whether column i stands at the right.
func (t Table) right(i int) bool { return t.Right > 0 && i >= t.Right }

// WriteText writes the table for a terminal.
func (t Table) WriteText(w io.Writer) {
	widths := make([]int, len(t.Lines[0]))
	for _, cells := range t.Lines {
		for i, s := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	for _, cells := range t.Lines {
		var b strings.Builder
		for i, s := range cells {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s))
			if t.right(i) {
				b.WriteString(pad + s + "  ")
			} else {
				b.WriteString(s + pad + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// WriteMarkdown writes the table for documentation.
func (t Table) WriteMarkdown(w io.Writer) {
	for n, cells := range t.Lines {
		for _, s := range cells {
			fmt.Fprintf(w, "| %s ", strings.ReplaceAll(s, "|", `\|`))
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for i := range cells {
			if t.right(i) {
				fmt.Fprint(w, "| ---: ")
			} else {
				fmt.Fprint(w, "| --- ")
			}
		}
		fmt.Fprintln(w, "|")
	}
}

// WriteJSON writes v to a file, for programs and for people.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
