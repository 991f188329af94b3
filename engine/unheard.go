package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/packet"
)

// unheard are copies of the first packets sent after a silence, kept until something is heard of the remote. One that
// has restarted does not know the session they were sealed in; it says so by a notice (§10), and when there is a new
// session they are sent again. Without that the first packet of a connection would be lost to the
// restart, and a dial would take the second until TCP repeats it.
type unheard struct {
	count   atomic.Int32 // of packets
	since   atomic.Int64 // when the first was sent, as liveness stamps it
	packets []heldPacket // under the remote's mu
}

const (
	afterSilence  = 5 * time.Millisecond // of the remote packets are copied; no process restarts faster
	maxUnheard    = 16
	maxUnheardLen = 2048 // what opens a connection is short
	unheardFor    = 3 * time.Second
)

// remember copies p, which has just been sealed, if nothing was heard of the remote for a while. It is on the way
// of packets, and takes the lock for a few of them only.
func (r *Remote) remember(p *packet.Packet, now time.Time) {
	l, u := &r.life, &r.unheard
	t := l.stamp(now)
	if t-l.received.Load() < int64(afterSilence) || p.Len() > maxUnheardLen {
		return
	}
	if u.count.Load() >= maxUnheard && t-u.since.Load() < int64(unheardFor) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t-u.since.Load() >= int64(unheardFor) {
		u.packets = u.packets[:0] // too old to be of use
	}
	if len(u.packets) == 0 {
		u.since.Store(t)
	}
	if len(u.packets) < maxUnheard {
		u.packets = append(u.packets, copyOf(p, now))
	}
	u.count.Store(int32(len(u.packets)))
}

// heard forgets the copies: what was sent may have arrived.
func (r *Remote) heard() {
	if r.unheard.count.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unheard.take()
}

// take empties u.
func (u *unheard) take() []heldPacket {
	p := u.packets
	u.packets = nil
	u.count.Store(0)
	return p
}

// resendUnheard is called with a new session and mu held. It sends the copies again, those that are not too old, if
// there was a notice just now, and forgets them. It reports whether anything was sent.
func (r *Remote) resendUnheard(s *session, now time.Time) bool {
	packets := r.unheard.take()
	if now.Sub(r.hs.noticed) >= unheardFor {
		return false
	}
	packets = slices.DeleteFunc(packets, func(p heldPacket) bool { return now.Sub(p.since) >= unheardFor })
	return len(packets) > 0 && r.sealAndSend(s, packets, now) > 0
}
