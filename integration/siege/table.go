//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

// table is everything, a line for each finding.
func (r *results) table() stage.Table {
	t := stage.Table{Lines: [][]string{{"attack", "asked", "seen", "held"}}}
	for _, row := range r.Rows {
		attack := row.Attack
		add := func(asked, seen, held string) {
			t.Lines = append(t.Lines, []string{attack, asked, seen, held})
			attack = ""
		}
		for _, f := range row.Findings {
			add(f.Asked, f.Seen, f.verdict())
		}
		if row.Error != "" {
			first, _, _ := strings.Cut(row.Error, "\n")
			add("the attack comes to its end", first, "no")
		}
	}
	return t
}

func (f finding) verdict() string {
	switch {
	case f.Held:
		return "yes"
	case f.Unsure:
		return "no figure"
	default:
		return "no"
	}
}

// writeText writes the table for a terminal, and the errors in full.
func (r *results) writeText(w io.Writer) {
	fmt.Fprintln(w)
	r.table().WriteText(w)
	for _, row := range r.Rows {
		if row.Error != "" {
			fmt.Fprintf(w, "\n%s: %s\n", row.ID, strings.TrimSpace(row.Error))
		}
	}
}

// writeMarkdown writes the same for the documentation, with what is needed to repeat it.
func (r *results) writeMarkdown(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Attacked %s by `%s`.\n\n", m.Time.Format("2 January 2006"), strings.TrimSpace(r.Command))
	fmt.Fprintf(w, "- processor: %s, %d cores\n- kernel: %s\n- Go: %s\n- adit: %s\n- load average at start: %.2f\n\n", m.Processor, m.Cores, m.Kernel, m.Go, m.Adit, m.Load)
	r.table().WriteMarkdown(w)
}
