//go:build linux

package main

import (
	"math/rand/v2"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

// badLine is a mobile network at the edge of its cell.
var badLine = lab.Impairment{Delay: 40 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.08, Reorder: 0.1}

// kinds are what can be dealt in the lab.
func (l *labGround) kinds() []kind {
	houses := map[string]*house{"nat a": l.natA, "nat b": l.natB}
	for _, t := range l.tenants {
		houses[t.name] = t.house
	}
	// pick makes a kind that is dealt to one of names.
	pick := func(name string, weight int, bound time.Duration, names []string, begin, end func(string)) kind {
		return kind{name, weight, bound, func(r *rand.Rand) blow {
			whom := names[r.IntN(len(names))]
			b := blow{whom: whom, begin: func() error { return stage.Attempt(func() { begin(whom) }) }}
			if end != nil {
				b.end = func() error { return stage.Attempt(func() { end(whom) }) }
			}
			return b
		}}
	}
	nats, mortals, relay := []string{"nat a", "nat b"}, []string{"sensor", "laptop", "server", "depot"}, []string{"relay"}
	again := func(name string) { l.must(l.tenant(name).again()) }
	// Processes are ended seldom enough for some to grow old; the relay, which has no others like it, most seldom.
	return []kind{
		pick("NAT forgets its flows", 8, usualBound, nats, func(n string) { houses[n].nat.FlushNAT() }, nil),
		pick("NAT has another address outside", 6, usualBound, nats, func(n string) {
			houses[n].move()
			houses[n].nat.FlushNAT()
		}, nil),
		pick("address changes", 10, usualBound, []string{"desk", "sensor", "server", "laptop", "depot"}, func(n string) { houses[n].move() }, nil),
		pick("link goes down", 10, usualBound, []string{"desk", "sensor", "server", "laptop", "depot", "web", "nat a", "nat b"},
			func(n string) { houses[n].Down(houses[n].on) }, func(n string) { houses[n].Up(houses[n].on) }),
		pick("relay's link goes down", 6, usualBound, relay,
			func(string) { l.relayHost.Down(l.public) }, func(string) { l.relayHost.Up(l.public) }),
		pick("silence on the way", 10, usualBound, []string{"nat a", "nat b", "web", "depot"},
			func(n string) { houses[n].Block(lab.Traffic{Protocol: lab.UDP}) }, func(n string) { houses[n].Unblock() }),
		pick("bad line", 10, usualBound, []string{"home b"},
			func(string) { l.line.Set(badLine) }, func(string) { l.line.Set(lab.Impairment{}) }),
		pick("process stands still", 10, usualBound, []string{"desk", "sensor", "server", "laptop", "depot", "web"},
			func(n string) { l.tenant(n).overlay().stop() }, func(n string) { l.tenant(n).overlay().resume() }),
		pick("relay stands still", 6, usualBound, relay, func(string) { l.relay.stop() }, func(string) { l.relay.resume() }),
		pick("relay killed and started again", 1, restartBound, relay, func(string) { l.relay.kill() }, func(string) { l.relay.start() }),
		pick("relay ended and started again", 1, restartBound, relay, func(string) { l.must(l.relay.end()) }, func(string) { l.relay.start() }),
		pick("peer killed and started again", 4, usualBound, mortals, func(n string) { l.tenant(n).kill() }, again),
		pick("peer ended and started again", 4, usualBound, mortals, func(n string) { l.must(l.tenant(n).endPeer()) }, again),
		pick("member joins or leaves", 6, restartBound, []string{"guest"}, l.comeOrGo, nil),
	}
}

// overlay is the process the member's peer is in.
func (t *tenant) overlay() *program {
	if t.peer != nil {
		return t.peer
	}
	return t.agent
}

// bereave is called before the process of the member's peer ends. Where the kernel has the connections they live on.
func (t *tenant) bereave() {
	switch t.kind {
	case withStack:
		t.agent.ground.company.depart(t.member)
	case withProxy:
		t.dying()
	case withTUN:
		t.forsaken()
	}
}

// buried is called when it has ended.
func (t *tenant) buried() {
	if t.kind != withTUN {
		t.dead()
	}
}

func (t *tenant) kill() {
	t.bereave()
	t.overlay().kill()
	t.buried()
}

func (t *tenant) endPeer() error {
	t.bereave()
	defer t.buried()
	return t.overlay().end()
}

// again starts the process of the member's peer.
func (t *tenant) again() error {
	if t.kind == withStack {
		return t.agent.ground.startAgent(t)
	}
	t.peer.start()
	if t.kind == withTUN {
		t.restored()
	}
	return nil
}

// comeOrGo has a member join, or leave in order.
func (l *labGround) comeOrGo(name string) {
	t := l.tenant(name)
	if t.agent.alive() == 0 {
		l.must(l.startAgent(t))
		return
	}
	l.company.takeLeave(t.member)
	l.must(t.endPeer())
}
