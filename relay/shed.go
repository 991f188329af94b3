package relay

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A shedder leaves it to the system to drop most of what a member sends far beyond its limit.
//
// A member can send faster than the relay reads. To read it all, only to drop it, takes the processor from the others, and what the
// socket's buffer has no room for meanwhile is anybody's. So the system is asked to let only so much of it into the buffer
// that the member still gets all of its limit. That concerns circuit data alone, and only from the address at which the member
// is known to be: nobody is shed for what others forge, and what a member asks the relay arrives.
type shedder struct {
	carrier shedding // nil: it cannot
	limit   float64  // of a member, in bytes a second
	relay   *Relay
	warning rate.Sometimes

	mu     sync.Mutex
	excess map[netip.AddrPort]*excess // of those who are shed, or were lately beyond their limit
	judged time.Time                  // when they were last judged
	shed   int                        // how many are
}

// shedding is what a carrier can do that leaves datagrams to the system to drop.
type shedding interface {
	Shed([]underlay.Shed) error
}

// excess is what came from one address, in the time since it was last judged, beyond its member's limit.
type excess struct {
	member *member
	bytes  int
	keep   float64 // the share that is received
}

const (
	shedEvery = 50 * time.Millisecond

	// shedSpare is what is received beyond the limit in any case, in bytes a second: what costs little, and shows
	// whether there still is more.
	shedSpare = 16 << 20

	leastKept = 1. / (1 << 12)
)

func (s *shedder) init(r *Relay, c underlay.Carrier) {
	s.carrier, _ = c.(shedding)
	s.limit = float64(r.limits.BytesPerSecond)
	s.relay = r
	s.warning.Interval = time.Minute
	s.excess = make(map[netip.AddrPort]*excess)
}

// exceeded notes that n bytes came from m, which is at from, beyond its limit.
func (s *shedder) exceeded(m *member, from netip.AddrPort, n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.carrier == nil {
		return
	}
	if len(s.excess) == 0 {
		s.judged = now
		time.AfterFunc(shedEvery, s.judge)
	}
	e := s.excess[from]
	if e == nil {
		e = &excess{member: m, keep: 1}
		s.excess[from] = e
	}
	e.bytes += n
}

// judge sets what is received of each, by what came since it was last called. It calls itself again as long as there is
// anything to judge.
func (s *shedder) judge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	elapsed := max(now.Sub(s.judged), time.Millisecond)
	s.judged = now
	var sheds []underlay.Shed
	for from, e := range s.excess {
		e.judge(s.limit, elapsed)
		if e.keep == 1 {
			delete(s.excess, from)
			continue
		}
		sheds = append(sheds, underlay.Shed{From: from, Kind: byte(wire.KindCircuit), Keep: e.keep})
	}
	if len(sheds) > underlay.MaxSheds { // the worst
		slices.SortFunc(sheds, func(a, b underlay.Shed) int { return cmp.Compare(a.Keep, b.Keep) })
		for _, spared := range sheds[underlay.MaxSheds:] {
			delete(s.excess, spared.From)
		}
		sheds = sheds[:underlay.MaxSheds]
	}
	if len(sheds) > 0 || s.shed > 0 {
		if err := s.carrier.Shed(sheds); err != nil {
			s.relay.log.Debug("the system does not drop what a member sends far beyond its limit; it is received and dropped", "error", err)
			s.carrier, s.shed = nil, 0
			clear(s.excess)
			return
		}
		s.shed = len(sheds)
	}
	for _, e := range s.excess {
		s.warning.Do(func() {
			s.relay.log.Warn("a member sends far more than its limit; most of it is dropped unread, so that the others are served",
				"member", e.member.label(), "limit", s.relay.limits.BytesPerSecond)
		})
	}
	if len(s.excess) > 0 {
		time.AfterFunc(shedEvery, s.judge)
	}
}

// judge sets the share to what would have made all that was received come to a little more than the limit. Whoever has stopped
// is received more and more of, until that is all.
func (e *excess) judge(limit float64, elapsed time.Duration) {
	received := limit + float64(e.bytes)/elapsed.Seconds()
	wanted := limit + max(limit/4, shedSpare)
	switch {
	case e.bytes == 0:
		e.keep *= 2
	case e.keep < 1 || received > 2*wanted:
		e.keep *= wanted / received
	}
	e.keep = min(1, max(leastKept, e.keep))
	e.bytes = 0
}

// sources is how many addresses there are of which the system drops a part.
func (s *shedder) sources() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shed
}
