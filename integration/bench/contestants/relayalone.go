//go:build linux

package contestants

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/adit-overlay/adit/integration/lab"
)

// aditRelayAlone is a relay on one core, driven by members that speak the protocol by hand: they make
// sessions and a circuit, and then send what only looks sealed, which costs them nearly nothing.
var aditRelayAlone = Contestant{Name: Adit, up: func(s *Site) *Pair {
	a, relay, b := s.relayed()
	r := &Relay{site: s, host: relay, a: a, b: b}
	return &Pair{Relay: r.start(memberB), Alone: r}
}}

// A Relay is a relay without peers.
type Relay struct {
	site       *Site
	host, a, b *lab.Host
}

// oneCore is the environment of a Go program that is to use one core.
const oneCore = "GOMAXPROCS=1"

func (r *Relay) start(members int) *lab.Process { return r.site.aditRelay(r.host, members, oneCore) }

// Passed is what came through the relay.
type Passed struct {
	Datagrams uint64
	Bytes     uint64 // of overlay packets
	Seconds   float64
}

// Blast sends overlay packets of size bytes through the relay's one circuit for a time, as many as it
// takes, and counts what arrives.
func (r *Relay) Blast(size int, d time.Duration) (Passed, error) {
	sink := r.members(r.b, "sink", "-relay", addrRelayB+":"+port, "-member", fmt.Sprint(memberB), "-from", fmt.Sprint(memberA), "-size", fmt.Sprint(size), "-for", d.String())
	r.site.says(sink, "online")
	source := r.members(r.a, "source", "-relay", addrRelayA+":"+port, "-member", fmt.Sprint(memberA), "-to", fmt.Sprint(memberB), "-size", fmt.Sprint(size), "-for", d.String())
	if err := output(source, source.Wait()); err != nil {
		stop(sink)
		return Passed{}, err
	}
	var p Passed
	return p, outcome(sink, &p)
}

// Serve puts another relay in the place of p's, which serves so many members.
func (r *Relay) Serve(p *Pair, members int) {
	stop(p.Relay)
	p.Relay = r.start(members)
}

// ServeTwo is Serve for as many members as Blast needs.
func (r *Relay) ServeTwo(p *Pair) { r.Serve(p, memberB) }

// Attached is how long it took the relay to answer so many handshakes.
type Attached struct {
	Handshakes int
	Seconds    float64
}

// Attach makes sessions with the relay as all its members, and confirms them.
func (r *Relay) Attach(members int) (Attached, error) {
	var t Attached
	p := r.members(r.a, "attach", "-relay", addrRelayA+":"+port, "-count", fmt.Sprint(members))
	return t, outcome(p, &t)
}

func (r *Relay) members(h *lab.Host, args ...string) *lab.Process {
	return r.site.startFor(h, "members", args...)
}

// outcome waits for a process and reads the last line it wrote.
func outcome(p *lab.Process, v any) error {
	if err := output(p, p.Wait()); err != nil {
		return err
	}
	return output(p, json.Unmarshal(lastLine(p.Output()), v))
}

func lastLine(text string) []byte {
	b := []byte(text)
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == '\n' {
			return b[i+1:]
		}
	}
	return b
}
