//go:build linux

package main

import (
	"strings"
	"syscall"
	"testing"
)

// A process that nobody asked to end is noticed, and what it wrote last is shown.
func TestDeadProcessIsNoticed(t *testing.T) {
	t.Parallel()
	needsLab(t)
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
