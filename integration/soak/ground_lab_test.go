//go:build linux

package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/adit-overlay/adit/integration/lab"
)

// TestSoakInNamespaces deals each kind of blow once, which takes some fifteen seconds.
func TestSoakInNamespaces(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	r := soaked(t, "-blows", "14")
	r.wantHealth(t, 14, true)
	if len(r.Idle) == 0 {
		t.Error("no process has shown its goroutines")
	}
}

// A process that nobody asked to end is noticed, and what it wrote last is shown.
func TestDeadProcessIsNoticed(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	err := onLab(quietly(), func(g *ground) error {
		if died := g.died(); len(died) > 0 {
			t.Errorf("before: %q", died)
		}
		for _, x := range g.subjects() {
			if x.name == "desk: adit up, TUN" {
				if err := syscall.Kill(x.pid, syscall.SIGABRT); err != nil {
					t.Error(err)
				}
			}
		}
		await(t, "the death of a process", func() bool { return len(g.died()) > 0 })
		died := strings.Join(g.died(), "\n")
		if !strings.Contains(died, "desk: adit up, TUN ended by itself") || !strings.Contains(died, "goroutine") {
			t.Errorf("the report is %q", died)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
