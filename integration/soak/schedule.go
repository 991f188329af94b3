package main

import (
	"math/rand/v2"
	"time"
)

// A kind is one way to hurt the overlay.
type kind struct {
	name   string
	weight int           // how often it is dealt, beside the others
	bound  time.Duration // for recovery, once the cause is over

	// choose says whom it is dealt this time. All chance is of r: the choice must not depend on what
	// happened, but only on what was chosen before.
	choose func(r *rand.Rand) blow
}

const (
	usualBound   = 2 * time.Second
	restartBound = 5 * time.Second // of a relay; and after a long outage, which is what a member that joins again has had

	// longOutage is how long others go on asking for one that is gone as often as at first.
	longOutage = 5 * time.Second
)

// A blow is one of a kind, for somebody.
type blow struct {
	whom  string
	begin func() error
	end   func() error // of the cause, some time later; nil: it is over once begun
}

// tempo is how quickly blows come.
type tempo struct {
	shortest, longest time.Duration // of a cause that lasts
	outage            time.Duration // one in six lasts up to so long; 0: none does
	calm              time.Duration // between blows, from half of it to one and a half
	sample            time.Duration
}

var (
	ordinary = tempo{shortest: 300 * time.Millisecond, longest: 4 * time.Second, outage: 12 * time.Second, calm: 2 * time.Second, sample: time.Second}

	// brisk is a look rather than a soak.
	brisk = tempo{shortest: 100 * time.Millisecond, longest: 300 * time.Millisecond, calm: 200 * time.Millisecond, sample: 200 * time.Millisecond}
)

func (o *options) tempo() tempo {
	if o.brisk || o.length < time.Minute {
		return brisk
	}
	return ordinary
}

// A schedule deals blows: each kind once, then again and again as often as its weight says.
type schedule struct {
	rand  *rand.Rand
	tempo tempo
	kinds []kind
	deck  []*kind
	dealt bool // each kind once
}

func newSchedule(seed uint64, t tempo, kinds []kind) *schedule {
	return &schedule{rand: rand.New(rand.NewPCG(seed, 0)), tempo: t, kinds: kinds}
}

// planned is what is dealt next.
type planned struct {
	*kind
	blow
	lasts time.Duration
	calm  time.Duration // before it
}

func (s *schedule) next() planned {
	if len(s.deck) == 0 {
		for i := range s.kinds {
			times := 1
			if s.dealt {
				times = s.kinds[i].weight
			}
			for range times {
				s.deck = append(s.deck, &s.kinds[i])
			}
		}
		s.dealt = true
		s.rand.Shuffle(len(s.deck), func(i, j int) { s.deck[i], s.deck[j] = s.deck[j], s.deck[i] })
	}
	k := s.deck[0]
	s.deck = s.deck[1:]
	t := s.tempo
	p := planned{kind: k, blow: k.choose(s.rand), calm: t.calm/2 + time.Duration(s.rand.Int64N(int64(t.calm)))}
	p.lasts = t.shortest + time.Duration(s.rand.Int64N(int64(t.longest-t.shortest)))
	if long := s.rand.IntN(6) == 0; long && t.outage > 0 {
		p.lasts = t.longest + time.Duration(s.rand.Int64N(int64(t.outage-t.longest)))
	}
	if p.end == nil {
		p.lasts = 0
	}
	return p
}

// within is how soon all is to be back after it.
func (p *planned) within() time.Duration {
	if p.lasts > longOutage {
		return max(p.bound, restartBound)
	}
	return p.bound
}
