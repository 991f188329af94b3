//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

// A row is an attack.
type row struct {
	id     string // what -run matches
	attack string // in words: what is done, to whom

	// run attacks, and tells the siege what it asked and saw. What keeps it from that ends the siege's stage.
	run func(*siege)
}

// A siege is a row being run, on a stage of its own: labs and processes made with it as lab.T end with it.
type siege struct {
	*stage.Stage
	programs string // where adit, box and attacker are
	quick    bool
	progress func(format string, args ...any)

	mu       sync.Mutex // guards findings, of a row that hangs too
	findings []finding
}

// seen is what was found so far.
func (s *siege) seen() []finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.findings)
}

// A finding is one thing that was asked, and what was seen.
type finding struct {
	Asked  string
	Seen   string
	Held   bool
	Unsure bool `json:",omitempty"` // a figure that -quick is too short for: not held against anybody
}

// found tells what was seen of what was asked, which holds or does not. What is true only of long attacks on a quiet
// machine, speed above all, is for measured.
func (s *siege) found(held bool, asked, seen string, args ...any) {
	s.find(finding{Asked: asked, Seen: fmt.Sprintf(seen, args...), Held: held})
}

func (s *siege) find(f finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = append(s.findings, f)
}

// measured is found for a figure that -quick does not judge.
func (s *siege) measured(held bool, asked, seen string, args ...any) {
	s.find(finding{Asked: asked, Seen: fmt.Sprintf(seen, args...), Held: held, Unsure: s.quick})
}

// pick returns what to use: less in a quick run.
func pick[T any](s *siege, usually, quickly T) T {
	if s.quick {
		return quickly
	}
	return usually
}

// sleep waits, unless the siege is called off.
func (s *siege) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.Context().Done():
		s.Fatalf("called off: %w", context.Cause(s.Context()))
	}
}

// dial connects from h, for at most as long as anything is waited for.
func (s *siege) dial(h *lab.Host, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	return h.DialContext(ctx, network, address)
}
