package engine

import (
	"time"

	"github.com/adit-overlay/adit/packet"
)

// held are packets that wait for a session. The first packet of a connection is always one of them,
// and losing it would cost the connection a second.
type held struct {
	packets []heldPacket
	bytes   int
}

type heldPacket struct {
	bytes []byte // our own copy
	packet.Offload
	since time.Time
}

const (
	maxHeldPackets = 256
	maxHeldBytes   = 256 << 10

	// heldFor is how long a packet waits. Then its sender is told that the host is down.
	heldFor = 5 * time.Second
)

func (h *held) waiting() bool { return len(h.packets) > 0 }

// add copies p. It returns how many older ones had to go for it.
func (h *held) add(p *packet.Packet, now time.Time) (dropped int) { return h.put(copyOf(p, now)) }

func copyOf(p *packet.Packet, now time.Time) heldPacket {
	b := make([]byte, 0, p.Len())
	for _, piece := range p.Pieces {
		b = append(b, piece...)
	}
	return heldPacket{bytes: b, Offload: p.Offload, since: now}
}

func (h *held) put(p heldPacket) (dropped int) {
	h.packets = append(h.packets, p)
	h.bytes += len(p.bytes)
	for len(h.packets) > maxHeldPackets || h.bytes > maxHeldBytes && len(h.packets) > 1 {
		h.bytes -= len(h.packets[0].bytes)
		h.packets[0] = heldPacket{}
		h.packets = h.packets[1:]
		dropped++
	}
	return dropped
}

// take empties h.
func (h *held) take() []heldPacket {
	p := h.packets
	*h = held{}
	return p
}

func (h *held) clear(e *Engine) { e.dropN(DropHeld, len(h.take())) }

func (h *held) deadline() time.Time {
	if len(h.packets) == 0 {
		return time.Time{}
	}
	return h.packets[0].since.Add(heldFor)
}

// hold keeps a packet until there is a session and a path, and sees to it that there will be.
// spent is a session that has no counters left, nil if that is not the reason.
func (r *Remote) hold(p *packet.Packet, spent *session, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.current.Load(); s != nil && s == spent {
		r.retire(s)
		r.current.Store(nil)
	}
	r.await([]heldPacket{copyOf(p, now)}, now)
}

// holdBefore is hold for packets that waited until it was known whose they are. They were read before all that was
// given to hold since.
func (r *Remote) holdBefore(packets []heldPacket, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range packets {
		packets[i].since = now // another wait begins
	}
	r.await(append(packets, r.held.take()...), now)
}

// await sends packets, or has them wait behind those that do. It is called with mu held.
func (r *Remote) await(packets []heldPacket, now time.Time) {
	if r.closed {
		r.engine.dropN(DropHeld, len(packets))
		return
	}
	if s := r.current.Load(); s != nil && r.path.Load() != nil {
		// One came up meanwhile, and what was held before has gone out.
		r.sealAndSend(s, packets, now)
		return
	}
	for _, p := range packets {
		r.engine.dropN(DropHeld, r.held.put(p))
	}
	if !r.hs.active {
		r.startHandshake(now)
		r.wake()
	}
	r.hurry(now)
}

// flushHeld sends what waited, and reports whether anything did. It is called with mu held.
func (r *Remote) flushHeld(s *session, now time.Time) bool {
	packets := r.held.take()
	return r.sealAndSend(s, packets, now) > 0
}

// advanceHeld gives up what has waited too long.
func (r *Remote) advanceHeld(now time.Time) {
	if due := r.held.deadline(); !due.IsZero() && !now.Before(due) {
		r.unreachable(packet.HostDown)
	}
}
