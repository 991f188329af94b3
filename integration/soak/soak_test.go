package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain has the test's program be the soak itself when a test runs it as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("SOAK_ITSELF") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// soaked runs the program and returns its report. Beside other tests no time is judged, and there is enough of it for all blows.
func soaked(t *testing.T, args ...string) *report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "soak.json")
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, "-untimed", "-brisk", "-for", "8m", "-seed", "1", "-json", file)...)
	cmd.Env = append(os.Environ(), "SOAK_ITSELF=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := new(report)
	if err := json.Unmarshal(b, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// wantHealth wants all kinds dealt, and traffic of all kinds.
func (r *report) wantHealth(t *testing.T, kinds int, pings bool) {
	t.Helper()
	seen := make(map[string]bool)
	for _, o := range r.Outcomes {
		seen[o.Kind] = true
	}
	if len(seen) != kinds {
		t.Errorf("%d kinds of blows were dealt, want all %d: %v", len(seen), kinds, seen)
	}
	c := r.Counts
	if c.StreamBytes == 0 || c.Requests == 0 || c.Returned == 0 || (c.Answered > 0) != pings {
		t.Errorf("some kind of traffic is missing, or there should be none: %+v", c)
	}
	if len(r.Lives) == 0 && runtime.GOOS == "linux" {
		t.Error("no process was sampled")
	}
}

// TestSoakOnLoopback does what can be done without root.
func TestSoakOnLoopback(t *testing.T) {
	t.Parallel()
	soaked(t, "-loopback", "-blows", "6").wantHealth(t, 6, false)
}

// quietly are options for a ground without a program around it.
func quietly() *options {
	return &options{length: time.Minute, seed: 1, untimed: true, progress: func(string, ...any) {}}
}

// await calls look until it returns true.
func await(t *testing.T, what string, look func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !look(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not noticed", what)
		}
		sleep(t.Context(), 20*time.Millisecond)
	}
}

// A peer is closed behind the soak's back: its connections die, and nobody knows a reason.
func TestDeadConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	o := quietly()
	l := &loopback{company: company{pace: o.pace()}}
	defer l.close()
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	s := newSoak(o, &ground{company: &l.company})
	if err := s.settle(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	l.lodger("web").peer.Close()
	await(t, "the loss of connections", func() bool {
		l.company.tell()
		return len(l.company.inexcusable()) > 0
	})
	r := s.report(time.Minute, nil)
	if len(r.Wrong) == 0 || !strings.Contains(strings.Join(r.Wrong, "\n"), "connection lost") {
		t.Errorf("the report says %q is wrong", r.Wrong)
	}
	var text bytes.Buffer
	r.write(&text)
	if !strings.Contains(text.String(), "things went wrong") {
		t.Errorf("the report does not show it:\n%s", text.String())
	}
}

// An interrupted soak ends in order, and reports.
func TestInterruptedSoakEndsInOrder(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	o := quietly()
	o.loopback = true
	o.progress = func(format string, _ ...any) {
		if strings.HasPrefix(format, "all %d members") {
			interrupt()
		}
	}
	r, err := o.run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Wrong) > 0 {
		t.Errorf("wrong: %v", r.Wrong)
	}
}
