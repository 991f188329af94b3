package relay

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A forwarder is a carrier that forwards what comes by circuits and hands the rest on to whoever
// receives from it, the engine. Whole messages are forwarded: one lookup, one check and one
// message to send for a run of datagrams, of which only the circuit ids are written anew.
type forwarder struct {
	underlay.Carrier
	relay *Relay

	// Only the goroutine that receives touches these.
	in      [messagesPerReceive]underlay.Message
	rest    []underlay.Message // for the engine
	handed  int                // how many of rest it has
	out     []underlay.Message // to send, all by the carrier to
	to      underlay.Carrier
	notices *rate.Limiter
}

const (
	messagesPerReceive = 8

	// noticesPerSecond bounds what all strangers together are told.
	noticesPerSecond = 200
)

func newForwarder(r *Relay, c underlay.Carrier) *forwarder {
	return &forwarder{Carrier: c, relay: r, notices: rate.NewLimiter(noticesPerSecond, noticesPerSecond)}
}

// Receive implements underlay.Carrier.
func (f *forwarder) Receive(ms []underlay.Message) (int, error) {
	for {
		if f.handed < len(f.rest) {
			n := copy(ms, f.rest[f.handed:])
			f.handed += n
			return n, nil
		}
		n, err := f.Carrier.Receive(f.in[:])
		if err != nil {
			return 0, err
		}
		now := time.Now()
		f.rest, f.handed = f.rest[:0], 0
		for _, m := range f.in[:n] {
			f.sort(m, now)
		}
		f.flush()
	}
}

// sort takes a message apart into runs: datagrams of one circuit, and datagrams of none.
func (f *forwarder) sort(m underlay.Message, now time.Time) {
	for len(m.Buf) > 0 {
		id, circuit := circuitOf(m.Buf[:min(m.Seg, len(m.Buf))])
		n := min(m.Seg, len(m.Buf))
		for n < len(m.Buf) {
			end := min(n+m.Seg, len(m.Buf))
			next, ok := circuitOf(m.Buf[n:end])
			if ok != circuit || next != id {
				break
			}
			n = end
		}
		run := underlay.Message{Buf: m.Buf[:n:n], Seg: min(m.Seg, n), Addr: m.Addr}
		if circuit {
			f.forward(id, run, now)
		} else {
			f.rest = append(f.rest, run)
		}
		m.Buf = m.Buf[n:]
	}
}

// circuitOf returns the circuit of a datagram that came by one.
func circuitOf(b []byte) (wire.CircuitID, bool) {
	if b[0] != byte(wire.KindCircuit) {
		return 0, false
	}
	id, _, ok := wire.ParseCircuit(b)
	return id, ok
}

// forward sends a run on to the circuit's other end, if it comes from where its sender is known to be.
func (f *forwarder) forward(id wire.CircuitID, m underlay.Message, now time.Time) {
	c := &f.relay.counters
	segments := uint64((len(m.Buf) + m.Seg - 1) / m.Seg)
	e := f.relay.circuits.lookup(id)
	if e == nil || !e.member.online() {
		c.unknown.Add(segments)
		f.notice(wire.CircuitUnknown, id, m.Addr, nil, now)
		return
	}
	if carrier, addr, _ := e.member.remote.Address(); carrier != underlay.Carrier(f) || addr != m.Addr {
		c.moved.Add(segments)
		f.notice(wire.CircuitMoved, id, m.Addr, &e.notices, now)
		return
	}
	carrier, addr, ok := e.other.member.remote.Address()
	if !ok {
		c.offline.Add(segments)
		return
	}
	if l := e.member.bytes; l != nil && !l.AllowN(now, len(m.Buf)) {
		c.limited.Add(segments)
		return
	}
	for at := 0; at < len(m.Buf); at += m.Seg {
		wire.SetCircuit(m.Buf[at:], e.other.id)
	}
	m.Addr = addr
	f.queue(carrier, m)
	c.datagrams.Add(segments)
	c.bytes.Add(uint64(len(m.Buf)))
}

// queue has m sent by carrier, with others of this batch.
func (f *forwarder) queue(carrier underlay.Carrier, m underlay.Message) {
	if carrier != f.to {
		f.flush()
		f.to = carrier
	}
	f.out = append(f.out, m)
}

// flush sends what was queued. The messages lie in memory borrowed from Receive, so it is called
// before the next.
func (f *forwarder) flush() {
	if len(f.out) == 0 {
		return
	}
	if err := f.to.Send(f.out); err != nil {
		f.relay.counters.unsent.Add(1)
	}
	f.out = f.out[:0]
}

// notice tells the sender of circuit data why it was not forwarded (§12).
func (f *forwarder) notice(code wire.CircuitCode, id wire.CircuitID, addr netip.AddrPort, each *rate.Limiter, now time.Time) {
	if each != nil && !each.AllowN(now, 1) || !f.notices.AllowN(now, 1) {
		return
	}
	b := wire.AppendCircuitNotice(nil, code, id)
	f.Carrier.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: addr}})
}

// counters count datagrams, but bytes.
type counters struct {
	datagrams, bytes        atomic.Uint64
	unknown, moved, offline atomic.Uint64
	limited, unsent         atomic.Uint64
}

// Stats is a snapshot of what a relay has forwarded and what it has not.
type Stats struct {
	Members, Online, Circuits int

	Datagrams, Bytes uint64 // forwarded

	Drops map[string]uint64 // datagrams not forwarded, by reason; reasons that have not occurred are left out
}

// Stats returns the relay's counters as they are now.
func (r *Relay) Stats() Stats {
	c := &r.counters
	s := Stats{Datagrams: c.datagrams.Load(), Bytes: c.bytes.Load(), Drops: make(map[string]uint64)}
	for reason, n := range map[string]*atomic.Uint64{
		"unknown_circuit": &c.unknown, "moved": &c.moved, "offline": &c.offline, "limit": &c.limited, "send": &c.unsent,
	} {
		if v := n.Load(); v > 0 {
			s.Drops[reason] = v
		}
	}
	for _, m := range r.directory.byKey {
		if m.remote == nil {
			continue
		}
		s.Members++
		if m.online() {
			s.Online++
		}
	}
	r.circuits.mu.RLock()
	s.Circuits = len(r.circuits.byID) / 2
	r.circuits.mu.RUnlock()
	return s
}
