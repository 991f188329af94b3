//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/lab"
)

// A foe is a process of the attacker: it waits for orders.
type foe struct {
	*lab.Process
	s      *siege
	orders *os.File
}

// foe runs a command of the attacker in h.
func (f *field) foe(h *lab.Host, args ...string) *foe {
	r, w, err := os.Pipe()
	if err != nil {
		f.s.Fatalf("%v", err)
	}
	defer r.Close()
	f.s.Cleanup(func() { w.Close() })
	x := &foe{Process: h.Command(filepath.Join(f.s.programs, "attacker"), args...), s: f.s, orders: w}
	x.Stdin = r
	x.Start()
	f.says(x.Process, "ready")
	return x
}

// flood runs an attacker that sends datagrams of a kind from forged sources.
func (f *field) flood(kind string, victim, rate int, more ...string) *foe {
	args := []string{"flood", "-kind", kind, "-victim", fmt.Sprint(victim), "-from", everywhere.String(), "-rate", fmt.Sprint(rate)}
	return f.foe(f.hostFoe, append(args, more...)...)
}

// at has the foe send to where it is told from now on.
func (x *foe) at(to netip.AddrPort) { x.order(to.String()) }

func (x *foe) order(line string) {
	if _, err := fmt.Fprintln(x.orders, line); err != nil {
		x.s.Fatalf("an attacker ended: %s", x.Output())
	}
}

// spent waits until the foe has sent what it was to send.
func (x *foe) spent() {
	ctx, cancel := context.WithTimeout(x.s.Context(), time.Minute)
	defer cancel()
	if err := x.WaitFor(ctx, "spent"); err != nil {
		x.s.Fatalf("%v", err)
	}
}

// end ends the attack and reads what it came to.
func (x *foe) end(result any) {
	x.orders.Close()
	select {
	case <-x.Done():
	case <-x.s.Context().Done():
		x.s.Fatalf("called off while an attacker was to end: %w", context.Cause(x.s.Context()))
	}
	if err := x.Wait(); err != nil {
		x.s.Fatalf("an attacker: %v; it wrote:\n%s", err, x.Output())
	}
	lines := strings.Split(strings.TrimSpace(x.Output()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), result); err != nil {
		x.s.Fatalf("an attacker: %v; it wrote:\n%s", err, x.Output())
	}
}

// flooded is what a flood came to.
type flooded struct {
	Sent    int
	Seconds float64

	Addresses, Cookies, Stamped int // of a flood from real ones
}

func (r flooded) rate() float64 { return float64(r.Sent) / r.Seconds }
