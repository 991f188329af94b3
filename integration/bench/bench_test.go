//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/adit-overlay/adit/integration/bench/contestants"
	"github.com/adit-overlay/adit/integration/lab"
)

// TestQuickRun runs the program on adit and the floor, without rivals and so without a network, and looks for
// figures wherever there are to be some. It says nothing about speed.
func TestQuickRun(t *testing.T) {
	lab.NeedRoot(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "bench")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	figures, tables := filepath.Join(dir, "figures.json"), filepath.Join(dir, "tables.md")
	out, err := exec.CommandContext(t.Context(), program, "-quick",
		"-contestants", "/(adit|no tunnel|kernel, cubic)$", "-json", figures, "-markdown", tables).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if got, want := len(r.Classes), len(contestants.Classes()); got != want {
		t.Errorf("%d classes, want all %d", got, want)
	}
	for _, c := range r.Classes {
		for _, l := range c.Lines {
			for _, e := range l.Entries {
				if e.Contestant == contestants.Adit && !l.empty() && (len(e.Figures) != 1 || e.Figures[0] <= 0) {
					t.Errorf("%s, %s: %v, want one figure greater than 0", l.Row, l.Name, e.Figures)
				}
			}
		}
		if c.Lines[0].empty() {
			t.Errorf("%s: nothing in the first line", c.ID)
		}
	}
	if text, err := os.ReadFile(tables); err != nil || len(text) == 0 {
		t.Errorf("the tables: %d bytes, %v", len(text), err)
	}
}
