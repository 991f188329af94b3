package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/adit-overlay/adit/integration/internal/strain"
	"github.com/adit-overlay/adit/integration/soak/traffic"
)

// A ground is what an overlay lies on, and what can be done to it.
type ground struct {
	name     string
	company  *company
	kinds    []kind
	subjects func() []subject // may be called at any time
	died     func() []string  // processes that ended by themselves so far, with what they wrote last

	// end asks all processes to end, when there is no traffic any more, and returns what was not in order, and
	// how many goroutines those had that have no agent to tell.
	end func() (wrong []string, idle map[string]int)
}

// run is one soak on the ground the options say.
func (o *options) run(ctx context.Context) (*report, error) {
	var r *report
	on := onLab
	if o.loopback {
		on = onLoopback
	}
	o.progress("seed %d; the same again: %s", o.seed, o.again())
	err := on(o, func(g *ground) (err error) {
		s := newSoak(o, g)
		r, err = s.run(ctx)
		return err
	})
	return r, err
}

// soak is the run of a ground.
type soak struct {
	*options
	*ground
	tempo   tempo
	sampler *sampler
	clock   strain.Clock
	dealt   []outcome
	wrong   []string
}

func newSoak(o *options, g *ground) *soak {
	s := &soak{options: o, ground: g, tempo: o.tempo(), sampler: newSampler()}
	g.company.busy = func(from, to time.Time) bool { return o.untimed || s.clock.Over(from, to).Strained() }
	return s
}

// outcome is what became of one blow.
type outcome struct {
	Kind, Whom   string
	Over         time.Time // the cause
	Lasted       time.Duration
	Bound        time.Duration
	Recovery     time.Duration  // until the last of the flows that are not streams was back
	Streams      time.Duration  // until the last of the streams moved
	Missed       []string       // flows that were not back within Bound, or within patience where that is not judged
	StreamsStuck int            // that had not moved when the next blow was dealt
	Strain       strain.Reading // of the machine, in the time within which all was to be back
	Judged       bool           // whether what is back is judged by how late it is
}

// patience is how long what misses its bound is waited for. What is not back then is not late: it is gone.
const patience = 2 * time.Minute

func (s *soak) run(ctx context.Context) (*report, error) {
	begin := time.Now()
	background := context.WithoutCancel(ctx)
	sampling, stop := context.WithCancel(background)
	var sampler sync.WaitGroup
	sampler.Go(func() { s.sampler.run(sampling, s.tempo.sample, s.company, s.subjects) })
	sampler.Go(func() { s.clock.Run(sampling) })
	defer sampler.Wait()
	defer stop()

	if err := s.settle(background, begin); err != nil {
		return nil, err
	}
	s.progress("all %d members speak to each other", len(s.company.present()))
	limited, cancel := context.WithTimeout(ctx, s.length-time.Since(begin))
	defer cancel()
	plan := newSchedule(s.seed, s.tempo, s.kinds)
	for s.blows == 0 || len(s.dealt) < s.blows {
		p := plan.next()
		if !sleep(limited, p.calm) || s.hopeless() {
			break
		}
		if err := s.deal(background, p); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		s.progress("interrupted: ending in order")
	}
	s.company.end()
	s.company.tell()
	s.progress("all traffic has ended")
	stop()
	sampler.Wait()
	s.wrong = append(s.wrong, s.company.problems...)
	s.wrong = append(s.wrong, s.died()...)
	wrong, idle := s.end()
	s.progress("all processes have ended")
	s.wrong = append(s.wrong, wrong...)
	return s.report(time.Since(begin), idle), nil
}

// hopeless: a process has ended by itself, and all that follows is of no use.
func (s *soak) hopeless() bool { return len(s.died()) > 0 }

// settle waits until all speak to each other for the first time.
func (s *soak) settle(ctx context.Context, begin time.Time) error {
	if err := s.company.mark(begin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all, err := s.company.awaitResumption(ctx, patience)
	if err != nil {
		return err
	}
	if missing := slices.DeleteFunc(all, func(r traffic.Resumption) bool { return !r.Back.IsZero() }); len(missing) > 0 {
		return fmt.Errorf("after %v there is no traffic on %d ways, %v among them", patience, len(missing), missing[0])
	}
	return s.company.calm(true)
}

// underWay is how long before a blow nothing counts as sent in calm.
const underWay = 300 * time.Millisecond

// slowEnd is how long it may take to end a cause. It counts as over when that begins, but a kernel that is long about
// it, as with a packet filter while namespaces are taken down, has not ended it yet.
const slowEnd = 500 * time.Millisecond

// deal deals one blow and waits for recovery.
func (s *soak) deal(ctx context.Context, p planned) error {
	if err := s.company.calm(false); err != nil {
		return err
	}
	sleep(ctx, underWay)
	if err := p.begin(); err != nil {
		return fmt.Errorf("%s, %s: %w", p.name, p.whom, err)
	}
	over := time.Now()
	if p.end != nil {
		sleep(ctx, p.lasts)
		over = time.Now()
		if err := p.end(); err != nil {
			return fmt.Errorf("%s, %s: ending it: %w", p.name, p.whom, err)
		}
		if took := time.Since(over); took > slowEnd {
			s.progress("%s, %s: ending it took %.2f s", p.name, p.whom, took.Seconds())
			over = time.Now()
		}
	}
	if err := s.company.mark(over); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all, err := s.company.awaitResumption(limited, p.lasts+time.Second)
	if err != nil {
		return err
	}
	out := judgeRecovery(p, over, all, s.clock.Over(over, over.Add(p.within())), !s.untimed)
	s.dealt = append(s.dealt, out)
	s.progress("%s, %s, %.1f s: back after %.2f s, TCP moves after %.2f s (%v)%s", p.name, p.whom,
		p.lasts.Seconds(), out.Recovery.Seconds(), out.Streams.Seconds(), out.Strain, out.note(!s.untimed))
	return s.company.calm(true)
}

// note says what was wrong, and what was late and not judged though times are.
func (o *outcome) note(timed bool) string {
	switch {
	case len(o.Missed) > 0:
		return fmt.Sprintf("; %d ways missed %v, %s among them", len(o.Missed), o.Bound, o.Missed[0])
	case timed && !o.Judged && o.Recovery > o.Bound:
		return "; the machine is too busy to say whether that is late"
	default:
		return ""
	}
}

// judgeRecovery says how soon all was back after the cause was over, and, if times are judged and the machine could have been in
// time, what was late. What is gone is missed in any case.
func judgeRecovery(p planned, over time.Time, all []traffic.Resumption, machine strain.Reading, timed bool) outcome {
	o := outcome{Strain: machine, Judged: timed && !machine.Busy(), Kind: p.name, Whom: p.whom, Lasted: p.lasts, Bound: p.within(), Over: over}
	slices.SortFunc(all, func(a, b traffic.Resumption) int { return cmp.Compare(b.Back.UnixNano(), a.Back.UnixNano()) }) // the latest first
	for _, r := range all {
		took := r.Back.Sub(over)
		stream := r.Kind == traffic.Stream
		switch {
		case stream && r.Back.IsZero():
			o.StreamsStuck++
		case stream:
			o.Streams = max(o.Streams, took)
		case r.Back.IsZero():
			o.Recovery = max(o.Recovery, patience)
			o.Missed = append(o.Missed, fmt.Sprintf("%s %s from %s to %s: never", r.Kind, r.Family, r.From, r.To))
		default:
			o.Recovery = max(o.Recovery, took)
			if took > o.Bound && o.Judged {
				o.Missed = append(o.Missed, fmt.Sprintf("%s %s from %s to %s: %.2f s", r.Kind, r.Family, r.From, r.To, took.Seconds()))
			}
		}
	}
	return o
}
