//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

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
func (f *field) flood(kind string, victim, rate int) *foe {
	return f.foe(f.hostFoe, "flood", "-kind", kind, "-victim", fmt.Sprint(victim), "-from", everywhere.String(), "-rate", fmt.Sprint(rate))
}

// at has the foe send to where it is told from now on.
func (x *foe) at(to netip.AddrPort) { x.order(to.String()) }

// pause has it wait.
func (x *foe) pause() { x.order("") }

func (x *foe) order(line string) {
	if _, err := fmt.Fprintln(x.orders, line); err != nil {
		x.s.Fatalf("an attacker ended: %s", x.Output())
	}
}

// end ends the attack and reads what it came to.
func (x *foe) end(result any) {
	x.orders.Close()
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
}

func (r flooded) rate() float64 { return float64(r.Sent) / r.Seconds }
