package underlay

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Link says what happens to datagrams from one address to another. Loss, Duplicate, Corrupt and Reorder
// are probabilities from 0 to 1. The zero value delivers all, at once and in order.
type Link struct {
	Loss      float64
	Burst     Burst // more loss, in rows
	Duplicate float64
	Corrupt   float64 // one bit of the datagram is turned over
	Reorder   float64 // the datagram is late by ReorderDelay, and those behind it pass

	ReorderDelay time.Duration // 10 ms when zero

	Delay  time.Duration
	Jitter time.Duration // up to so much more delay, evenly spread; datagrams may pass each other

	MTU  int  // longer datagrams are dropped; 0: no limit
	Down bool // all datagrams are dropped
}

// Burst is loss that comes in rows, after Gilbert and Elliott: a link is good or bad, and each datagram may find it
// changed. All is lost while it is bad. The zero value is a link that stays good.
type Burst struct {
	Begin float64 // the probability, at each datagram, that a good link turns bad
	End   float64 // and that a bad one turns good; the rows are 1/End long on average
}

func (l Link) reorderDelay() time.Duration {
	if l.ReorderDelay > 0 {
		return l.ReorderDelay
	}
	return 10 * time.Millisecond
}

// direction names a link.
type direction struct{ from, to netip.AddrPort }

// link is the state of one direction.
type link struct {
	own  *Link // nil: the network's standard
	cut  bool
	bad  bool // in a burst of loss
	rand *rand.Rand
}

// link returns the link between two addresses, which is made when first asked for. Needs mu.
func (m *Memory) link(from, to netip.AddrPort) *link {
	d := direction{unmapped(from), unmapped(to)}
	l := m.links[d]
	if l == nil {
		l = &link{rand: rand.New(rand.NewPCG(m.cfg.Seed, d.hash()))}
		m.links[d] = l
	}
	return l
}

// hash is the same in every process, unlike that of a map.
func (d direction) hash() uint64 {
	h := fnv.New64a()
	for _, a := range []netip.AddrPort{d.from, d.to} {
		b, _ := a.MarshalBinary() // never fails
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(b))))
		h.Write(b)
	}
	return h.Sum64()
}

func (l *link) now(standard Link) Link {
	if l.own != nil {
		return *l.own
	}
	return standard
}

// happens throws the dice.
func (l *link) happens(probability float64) bool {
	return probability > 0 && l.rand.Float64() < probability
}

// bursts takes the link one datagram on, and reports whether it is bad.
func (l *link) bursts(b Burst) bool {
	switch {
	case b == Burst{}:
		l.bad = false
	case l.bad:
		l.bad = !l.happens(b.End)
	default:
		l.bad = l.happens(b.Begin)
	}
	return l.bad
}

func (l *link) delay(now Link) time.Duration {
	if now.Jitter <= 0 {
		return now.Delay
	}
	return now.Delay + time.Duration(l.rand.Int64N(int64(now.Jitter)))
}

// corrupt returns a copy of d with one bit turned over.
func (l *link) corrupt(d []byte) []byte {
	d = append([]byte(nil), d...)
	bit := l.rand.IntN(8 * len(d))
	d[bit/8] ^= 1 << (bit % 8)
	return d
}
