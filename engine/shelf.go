package engine

import "github.com/adit-overlay/adit/packet"

// A shelf is an inlet that keeps what is delivered until it is its goroutine's turn. The packets stay in the
// memory the device lent for them.
type shelf struct {
	turn  *turn
	slots [shelfSlots]shelved
	used  int
	errs  func(error)
}

type shelved struct {
	in packet.Inlet // one for each slot, as each lends room for one packet
	n  int
	packet.Offload
}

// shelfSlots is how many packets wait: a batch of full messages makes a super-packet of each, as a rule.
const shelfSlots = 16

func newShelf(d Device, t *turn, errs func(error)) *shelf {
	s := &shelf{turn: t, errs: errs}
	for i := range s.slots {
		s.slots[i].in = d.Inlet()
	}
	return s
}

// Lend implements packet.Inlet.
func (s *shelf) Lend(n int) []byte { return s.slots[s.used].in.Lend(n) }

// Deliver implements packet.Inlet. What the device says to the packet is told later, by errs.
func (s *shelf) Deliver(n int, o packet.Offload) error {
	s.slots[s.used].n, s.slots[s.used].Offload = n, o
	if s.used++; s.used == len(s.slots) {
		s.clear()
	}
	return nil
}

// clear hands all to the device when the turn comes.
func (s *shelf) clear() {
	s.turn.wait()
	for i := range s.slots[:s.used] {
		p := &s.slots[i]
		if err := p.in.Deliver(p.n, p.Offload); err != nil {
			s.errs(err)
		}
	}
	s.used = 0
}
