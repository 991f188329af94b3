//go:build linux

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// brief is a plan of no more than the rows it is given, whose rows may take no time.
func brief() *plan {
	return &plan{limits: limits{row: time.Second, ending: time.Second}, progress: func(string, ...any) {}}
}

// A row that takes too long has failed, by the reason it gives, or, where it does not notice, without one. What it has found it keeps.
func TestRowThatTakesTooLongFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		all := brief().run(t.Context(), []row{
			{id: "waits", run: func(s *siege) { s.found(true, "a", "b"); s.sleep(time.Hour) }},
			{id: "hangs", run: func(s *siege) { s.found(true, "a", "b"); <-forever }},
			{id: "next", run: func(s *siege) { s.found(true, "a", "b") }},
		})
		for i, want := range []string{"called off: not done within 1s", "hangs, and has not ended 1s after it was called off: not done within 1s", ""} {
			if r := all[i]; r.Error != want || len(r.Findings) != 1 {
				t.Errorf("%s: error %q with %d findings, want %q with one", r.ID, r.Error, len(r.Findings), want)
			}
		}
	})
}

// An interrupted run reports the rows that are done, and begins no other.
func TestInterruptedRunReportsWhatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		r := &results{Rows: brief().run(ctx, []row{
			{id: "first", attack: "the first", run: func(s *siege) { s.found(true, "asked first", "seen first") }},
			{id: "second", attack: "the second", run: func(s *siege) { interrupt(); s.sleep(time.Hour) }},
			{id: "third", attack: "the third", run: func(*siege) { t.Error("a row began after the interrupt") }},
		})}
		var text strings.Builder
		r.writeText(&text)
		for _, want := range []string{"seen first", "second: called off", "third: interrupted before it began"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("the report lacks %q:\n%s", want, &text)
			}
		}
		if n := r.broken(); n != 2 {
			t.Errorf("%d did not hold, want the two that did not come to their ends", n)
		}
	})
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
