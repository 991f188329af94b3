//go:build linux

package main

import (
	"github.com/adit-overlay/adit/integration/internal/stage"
)

// results are everything a run has found. It is what -json writes.
type results struct {
	Command string
	Machine stage.Machine
	Quick   bool `json:",omitempty"`
	Rows    []rowResults
}

type rowResults struct {
	ID, Attack string
	Findings   []finding
	Error      string `json:",omitempty"` // what kept the row from its end
}

// broken is how much did not hold. A row that did not come to its end, or asked nothing, did not either.
func (r *results) broken() (n int) {
	for _, row := range r.Rows {
		if row.Error != "" || len(row.Findings) == 0 {
			n++
		}
		for _, f := range row.Findings {
			if !f.Held && !f.Unsure {
				n++
			}
		}
	}
	return n
}
