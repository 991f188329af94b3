//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/adit-overlay/adit/integration/lab"

	// What the programs are made of: go test must not repeat an old result when it has changed.
	_ "github.com/adit-overlay/adit/integration/internal/service"
	_ "github.com/adit-overlay/adit/peer"
	_ "github.com/adit-overlay/adit/socks"
)

// TestQuickRun runs all attacks, shortly, and looks whether each comes to its end and finds something. What is no
// figure of speed must hold.
func TestQuickRun(t *testing.T) {
	lab.NeedRoot(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "siege")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	figures, table := filepath.Join(dir, "figures.json"), filepath.Join(dir, "table.md")
	out, err := exec.CommandContext(t.Context(), program, "-quick", "-json", figures, "-markdown", table).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if got, want := len(r.Rows), len(programme()); got != want {
		t.Errorf("%d rows, want all %d", got, want)
	}
	for _, row := range r.Rows {
		if len(row.Findings) == 0 {
			t.Errorf("%s has found nothing", row.ID)
		}
		for _, f := range row.Findings {
			if f.Asked == "" || f.Seen == "" {
				t.Errorf("%s: asked %q, seen %q", row.ID, f.Asked, f.Seen)
			}
		}
	}
	if text, err := os.ReadFile(table); err != nil || len(text) == 0 {
		t.Errorf("the table: %d bytes, %v", len(text), err)
	}
}

func TestRowsHaveNamesOfTheirOwn(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range programme() {
		if seen[r.id] || r.id == "" || r.attack == "" {
			t.Errorf("row %q (%q): seen before, or without a name", r.id, r.attack)
		}
		seen[r.id] = true
	}
}

// TestWhatDidNotHoldIsCounted is what the exit code hangs on.
func TestWhatDidNotHoldIsCounted(t *testing.T) {
	held, not, unsure := finding{Held: true}, finding{}, finding{Unsure: true}
	for _, c := range []struct {
		name string
		row  rowResults
		want int
	}{
		{"all held", rowResults{Findings: []finding{held, held}}, 0},
		{"one not", rowResults{Findings: []finding{held, not}}, 1},
		{"one that -quick does not judge", rowResults{Findings: []finding{held, unsure}}, 0},
		{"nothing was asked", rowResults{}, 1},
		{"ended early", rowResults{Findings: []finding{held}, Error: "hung"}, 1},
	} {
		if got := (&results{Rows: []rowResults{c.row}}).broken(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
