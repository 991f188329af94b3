//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

// table is a class, a line for each metric.
func (c *classResults) table() stage.Table {
	t := stage.Table{Right: 2, Lines: [][]string{slices.Concat([]string{c.Title, ""}, c.Contestants, []string{"adit : best rival"})}}
	for _, l := range c.Lines {
		if l.empty() {
			continue
		}
		cells := []string{l.Name, l.Unit}
		for _, e := range l.Entries {
			cells = append(cells, e.text())
		}
		t.Lines = append(t.Lines, append(cells, ratioText(l.ratio())))
	}
	return t
}

// empty lines are those that apply to nobody, such as the relay's where there is none.
func (l *line) empty() bool {
	return !slices.ContainsFunc(l.Entries, func(e *entry) bool { return len(e.Figures) > 0 || e.failed() })
}

// text is the median and, where there was more than one round, the least and greatest figure.
func (e *entry) text() string {
	if e.failed() {
		return "failed: " + brief(e.Error)
	}
	switch len(e.Figures) {
	case 0:
		return "–"
	case 1:
		return number(e.Figures[0])
	}
	return fmt.Sprintf("%s (%s–%s)", number(e.median()), number(slices.Min(e.Figures)), number(slices.Max(e.Figures)))
}

func ratioText(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return number(v) + " ×"
}

// number writes three digits that matter, and no fewer than there are before the point.
func number(v float64) string {
	decimals := 0
	if v != 0 {
		decimals = min(max(2-int(math.Floor(math.Log10(math.Abs(v)))), 0), 4)
	}
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', decimals, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

// brief is the first line of an error, shortened.
func brief(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if r := []rune(text); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return text
}

// writeText writes the tables for a terminal.
func (r *results) writeText(w io.Writer) {
	for _, c := range r.Classes {
		fmt.Fprintln(w)
		c.table().WriteText(w)
	}
	r.writeFailures(w)
}

// writeMarkdown writes the same for the documentation, with all that is needed to repeat it.
func (r *results) writeMarkdown(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Measured %s by `%s`, %s, median (least–greatest).\n", m.Time.Format("2 January 2006"), r.Command, rounds(r.Rounds))
	fmt.Fprintf(w, "The last column says how many times better adit is than the best of the others; below 1 it is worse.\n\n")
	for _, f := range [][2]string{
		{"processor", fmt.Sprintf("%s, %d cores", m.Processor, m.Cores)},
		{"memory", fmt.Sprintf("%d MB", m.MemoryMB)},
		{"kernel", m.Kernel},
		{"Go", m.Go},
		{"adit", m.Adit},
		{"rivals", strings.Join(m.Rivals, ", ")},
		{"load average at start", fmt.Sprintf("%.2f", m.Load)},
	} {
		if f[1] != "" {
			fmt.Fprintf(w, "- %s: %s\n", f[0], f[1])
		}
	}
	for _, c := range r.Classes {
		fmt.Fprintln(w)
		c.table().WriteMarkdown(w)
	}
	r.writeFailures(w)
}

func rounds(n int) string {
	if n == 1 {
		return "1 round"
	}
	return fmt.Sprintf("%d rounds", n)
}

func (r *results) writeFailures(w io.Writer) {
	failures := r.failures()
	if len(failures) == 0 {
		return
	}
	fmt.Fprintf(w, "\nFailed:\n\n")
	for _, f := range failures {
		fmt.Fprintf(w, "- %s\n", strings.ReplaceAll(strings.TrimSpace(f), "\n", "\n  "))
	}
}
