package relay

import (
	"hash/maphash"
	"net/netip"
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
	in        [messagesPerReceive]underlay.Message
	rest      []underlay.Message // for the engine
	handed    int                // how many of rest it has
	out       []underlay.Message // to send, all by the carrier to
	to        underlay.Carrier
	strangers strangers

	shedder shedder
}

const messagesPerReceive = 8

func newForwarder(r *Relay, c underlay.Carrier) *forwarder {
	f := &forwarder{Carrier: c, relay: r}
	f.strangers.init()
	f.shedder.init(r, c)
	return f
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

// sort takes a message apart into runs: datagrams of one circuit, and datagrams of none. One that must not be fragmented
// is a run of its own.
func (f *forwarder) sort(m underlay.Message, now time.Time) {
	for len(m.Buf) > 0 {
		n := min(m.Seg, len(m.Buf))
		id, circuit := circuitOf(m.Buf[:n])
		whole := circuit && wire.IsWhole(m.Buf)
		for n < len(m.Buf) && !whole {
			end := min(n+m.Seg, len(m.Buf))
			next, ok := circuitOf(m.Buf[n:end])
			if ok != circuit || next != id || ok && wire.IsWhole(m.Buf[n:]) {
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

// forward sends a run on to the circuit's other end, if it comes from where its sender is known to be. What must arrive
// whole or not at all goes on so (§20).
func (f *forwarder) forward(id wire.CircuitID, m underlay.Message, now time.Time) {
	c := &f.relay.counters
	e := f.relay.circuits.lookup(id)
	if e == nil {
		c.drops[dropUnknown].Add(segments(m))
		f.tellUnknown(id, m.Addr, now)
		return
	}
	carrier, addr, online := e.member.remote.Address()
	switch {
	case !online: // its session is over, and its circuits are soon
		c.drops[dropUnknown].Add(segments(m))
		f.tellUnknown(id, m.Addr, now)
		return
	case carrier != underlay.Carrier(f) || addr != m.Addr:
		c.drops[dropMoved].Add(segments(m))
		f.challenge(e, m.Addr, now)
		return
	}
	carrier, addr, online = e.other.member.remote.Address()
	if !online {
		c.drops[dropOffline].Add(segments(m))
		return
	}
	if n := e.member.within(len(m.Buf), m.Seg, now); n < len(m.Buf) {
		rest := underlay.Message{Buf: m.Buf[n:], Seg: m.Seg}
		c.drops[dropLimit].Add(segments(rest))
		f.shedder.exceeded(e.member, m.Addr, len(rest.Buf), now)
		if m.Buf = m.Buf[:n:n]; n == 0 {
			return
		}
	}
	for at := 0; at < len(m.Buf); at += m.Seg {
		wire.SetCircuit(m.Buf[at:], e.other.id)
	}
	m.Addr = addr
	if wire.IsWhole(m.Buf) {
		if !e.probes.AllowN(now, 1) {
			c.drops[dropLimit].Add(1)
			return
		}
		f.flush() // it overtakes nothing
		if err := carrier.Probe(m); err != nil {
			c.drops[dropSend].Add(1)
			return
		}
	} else {
		f.queue(carrier, m)
	}
	e.circuit.touch(f.relay.seconds(now))
	c.datagrams.Add(segments(m))
	c.bytes.Add(uint64(len(m.Buf)))
}

// segments is how many datagrams a message holds.
func segments(m underlay.Message) uint64 { return uint64((len(m.Buf) + m.Seg - 1) / m.Seg) }

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
		f.relay.counters.drops[dropSend].Add(1)
	}
	f.out = f.out[:0]
}

// challenge tells the sender of circuit data that it is not known to be there (§20). Only who knows the
// circuit's id gets here, so each end of a circuit has a limit of its own, and none for all together: no
// flood keeps a member from being asked.
func (f *forwarder) challenge(e *end, addr netip.AddrPort, now time.Time) {
	if e.challenges.AllowN(now, 1) {
		f.notice(wire.CircuitMoved, e.id, addr)
	}
}

// tellUnknown tells the sender of circuit data that there is no such circuit (§20).
func (f *forwarder) tellUnknown(id wire.CircuitID, addr netip.AddrPort, now time.Time) {
	if f.strangers.allow(addr.Addr(), now) {
		f.notice(wire.CircuitUnknown, id, addr)
	}
}

func (f *forwarder) notice(code wire.CircuitCode, id wire.CircuitID, addr netip.AddrPort) {
	b := wire.AppendCircuitNotice(nil, code, id)
	if f.Carrier.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: addr}}) != nil {
		f.relay.counters.drops[dropSend].Add(1)
	}
}

// strangers bounds what those are told who have no circuit here: members too, when the relay has
// restarted. Addresses share the limits by chance, so that a flood from one takes what few
// others need, and that of all of them needs no memory that grows.
type strangers struct {
	seed   maphash.Seed
	limits [strangerLimits]*rate.Limiter
}

const (
	strangerLimits     = 64
	noticesPerStranger = 20 // a second, and at once
)

func (s *strangers) init() {
	s.seed = maphash.MakeSeed()
	for i := range s.limits {
		s.limits[i] = rate.NewLimiter(noticesPerStranger, noticesPerStranger)
	}
}

func (s *strangers) allow(a netip.Addr, now time.Time) bool {
	return s.limits[maphash.Comparable(s.seed, a)%strangerLimits].AllowN(now, 1)
}
