package engine

import (
	"sync"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/wire"
)

// A circuit is a forwarding entry at a relay. This file is the client's side of it: to have one
// opened, to know whose it is when something comes by it, and to have another one when
// it is lost (§12). The session with the remote, made through it end to end, lives on.

// circuitTable finds the relay and remote of a circuit by its id.
type circuitTable struct {
	mu   sync.RWMutex
	byID map[wire.CircuitID]circuitEnd
}

type circuitEnd struct {
	relay, remote *Remote
}

func (t *circuitTable) init() { t.byID = make(map[wire.CircuitID]circuitEnd) }

func (t *circuitTable) lookup(id wire.CircuitID) (circuitEnd, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c, ok := t.byID[id]
	return c, ok
}

func (t *circuitTable) add(p path, r *Remote) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[p.circuit] = circuitEnd{relay: p.relay, remote: r}
}

func (t *circuitTable) remove(p path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, p.circuit)
}

// relayAt returns the relay whose packets come that way, nil if none does.
func (e *Engine) relayAt(from path) *Remote {
	for _, r := range e.listRelays() {
		if p := r.path.Load(); p != nil && *p == from {
			return r
		}
	}
	return nil
}

// openCircuit asks for a circuit to the remote: the relay that told of it, or all of them. It is
// called with mu held.
func (r *Remote) openCircuit(now time.Time) {
	ps := &r.paths
	if ps.opening {
		return
	}
	relays := r.engine.listRelays()
	if len(relays) == 0 {
		return
	}
	ps.opening = true
	left := len(relays)
	for _, relay := range relays {
		ask := func(id wire.QuestionID) wire.Control { return wire.OpenCircuit{ID: id, Remote: r.key} }
		r.engine.requests.ask(relay, ask, now, func(answer wire.Control) {
			now := time.Now()
			r.mu.Lock()
			defer r.mu.Unlock()
			if left--; left == 0 {
				ps.opening = false
			}
			if r.closed {
				return
			}
			a, ok := answer.(wire.OpenCircuitReply)
			switch {
			case ok && a.Status == wire.CircuitOK:
				r.circuitOpened(path{relay: relay, circuit: a.Circuit}, now)
			case ok && left == 0 && ps.circuit.relay == nil && r.current.Load() == nil && len(ps.addrs) == 0:
				r.unreachable(packet.HostDown) // no relay knows it to be there
			}
			r.wake()
		})
	}
}

// circuitOpened has a circuit to try. It is called with mu held.
func (r *Remote) circuitOpened(p path, now time.Time) {
	if old := r.paths.circuit; old.relay != nil && old.relay != p.relay {
		if have := r.path.Load(); have != nil && *have == old && old.relay.answers(now) {
			return // the one in use will do
		}
	}
	// What was sent by the same circuit may be answered yet: the relay's answer to us takes half the
	// time of the remote's, and an initiation made anew for each would find no response, ever.
	if r.adoptCircuit(p) && r.hs.active {
		r.hs.due = now
	}
}

// adoptCircuit makes p the circuit of the remote, and reports whether it was not. If an older circuit
// was in use, p is now. It is called with mu held.
func (r *Remote) adoptCircuit(p path) bool {
	old := r.paths.circuit
	if old == p {
		return false
	}
	if old.relay != nil {
		r.engine.circuits.remove(old)
	}
	r.paths.circuit = p
	r.engine.circuits.add(p, r)
	if have := r.path.Load(); have != nil && have.relay != nil {
		r.setPath(p)
	}
	return true
}

// circuitOffered is told by a relay that a member opened a circuit to us.
func (e *Engine) circuitOffered(relay *Remote, m wire.CircuitOffered, now time.Time) {
	r := e.learn(m.Remote)
	if r == nil {
		e.drop(DropControl)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.circuitOpened(path{relay: relay, circuit: m.Circuit}, now)
		r.wake()
	}
}

// circuitClosed is told by a relay that a circuit is no more.
func (e *Engine) circuitClosed(relay *Remote, id wire.CircuitID, now time.Time) {
	c, ok := e.circuits.lookup(id)
	if !ok || c.relay != relay {
		return
	}
	c.remote.circuitLost(id, now)
}

func (r *Remote) circuitLost(id wire.CircuitID, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.paths.circuit.circuit != id || now.Sub(r.paths.closed) < wire.NoticeInterval {
		return
	}
	r.paths.closed = now
	if p := r.path.Load(); p != nil && p.relay != nil && r.wanted(now) {
		r.openCircuit(now)
	}
}

// circuitNotice is told by a relay, or whoever says it is one, that it does not forward on a circuit
// (§12). What it prompts is small, rare and authenticated.
func (e *Engine) circuitNotice(code wire.CircuitCode, id wire.CircuitID, now time.Time) {
	c, ok := e.circuits.lookup(id)
	if !ok {
		e.drop(DropUnexpected)
		return
	}
	switch code {
	case wire.CircuitMoved:
		c.relay.showAddress(now)
	case wire.CircuitUnknown:
		c.remote.circuitLost(id, now)
	default:
		e.drop(DropUnexpected)
	}
}

// showAddress sends the relay a packet of our session, so that it learns our new address.
func (r *Remote) showAddress(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.current.Load(); s != nil && !r.closed && now.Sub(r.hs.shown) >= challengeEvery {
		r.hs.shown = now
		r.sendProbe(s, now)
		r.wake()
	}
}

// challengeEvery is the least time between two answers to challenges.
const challengeEvery = 100 * time.Millisecond
