package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/adit-overlay/adit/integration/soak/traffic"
)

// pace is moderate: it is to find what is wrong, not what is slow, and to leave the machine idle most of the time, so that what
// comes late is not the machine's fault.
var pace = traffic.Pace{Stream: 40_000, Request: 500 * time.Millisecond, Datagram: 60 * time.Millisecond, Ping: 200 * time.Millisecond}

// gently is for a machine with other work.
var gently = traffic.Pace{Stream: 10_000, Request: 2 * time.Second, Datagram: 240 * time.Millisecond, Ping: 800 * time.Millisecond}

// pace is that of the traffic.
func (o *options) pace() traffic.Pace {
	if o.untimed {
		return gently
	}
	return pace
}

// rekeyAfter is the shortest that configuration allows.
const rekeyAfter = 10 * time.Second

// A member is one of the overlay, present or not.
type member struct {
	name   string
	addrs  []netip.Addr
	serves bool // whether others can ask it for more than pings

	mu      sync.Mutex // guards what follows
	control *traffic.Controller
	known   int            // findings that its agent has told of
	last    traffic.Report // of its agent, which may be gone
	past    traffic.Counts // of its agents before
	keys    uint64         // likewise
	deaths  []span         // while what connections end in there was ending
	gaps    []span         // while its peer was gone under connections that live on
}

// newMember is the n-th: 10.9.0.N+2 and fd00:9::N+2.
func newMember(name string, n int) *member {
	return &member{name: name, addrs: []netip.Addr{
		netip.AddrFrom4([4]byte{10, 9, 0, byte(n + 2)}),
		netip.AddrFrom16([16]byte{0: 0xfd, 3: 9, 15: byte(n + 2)}),
	}}
}

func (m *member) agent() *traffic.Controller {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.control
}

// A span begins and ends, or has not ended yet.
type span struct{ from, to time.Time }

func begin(spans []span) []span { return append(spans, span{from: time.Now()}) }
func end(spans []span)          { spans[len(spans)-1].to = time.Now() }

// meets reports whether some of it was between two times.
func (s span) meets(from, to time.Time) bool {
	return !to.Before(s.from) && (s.to.IsZero() || !from.After(s.to))
}

// dying notes that what connections from and to m end in is about to end; dead that it has.
func (m *member) dying() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaths = begin(m.deaths)
}

func (m *member) dead() {
	m.mu.Lock()
	defer m.mu.Unlock()
	end(m.deaths)
}

// forsaken notes that the peer of m is about to end, and that those who use it are not; restored that there is another.
func (m *member) forsaken() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gaps = begin(m.gaps)
}

func (m *member) restored() {
	m.mu.Lock()
	defer m.mu.Unlock()
	end(m.gaps)
}

// A company is all members. Its methods but tell and size are for one goroutine.
type company struct {
	pace    traffic.Pace
	members []*member

	// busy reports whether the machine was, so that nothing that was late then is judged; nil: it never is.
	busy func(from, to time.Time) bool

	mu       sync.Mutex // guards what follows
	findings []traffic.Finding
	problems []string  // of what was to end in order
	joined   []*member // and have not left, though their agents may be gone for a while
	changed  time.Time // when the last one joined or left
}

// arrive gives m the agent behind c, and has it and all who are present meet.
func (c *company) arrive(m *member, control *traffic.Controller) error {
	m.mu.Lock()
	m.control, m.known, m.last = control, 0, traffic.Report{}
	m.mu.Unlock()
	for _, o := range c.present() {
		if o == m {
			continue
		}
		for _, pair := range [][2]*member{{m, o}, {o, m}} {
			from, to := pair[0], pair[1]
			t := traffic.Target{Name: to.name, Addrs: to.addrs, Serves: to.serves, Pace: c.pace}
			if err := from.agent().Meet(t); err != nil {
				return fmt.Errorf("%s is to meet %s: %w", from.name, to.name, err)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.joined, m) {
		c.joined, c.changed = append(c.joined, m), time.Now()
	}
	return nil
}

// left notes that all of them leave.
func (c *company) left(leaving ...*member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined = slices.DeleteFunc(c.joined, func(m *member) bool { return slices.Contains(leaving, m) })
	c.changed = time.Now()
}

// size is how many members have joined and not left, 0 if that has changed too lately for traffic to be as much as it will be.
func (c *company) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.changed) < warmUp {
		return 0
	}
	return len(c.joined)
}

// depart is called before the agent of m ends, however that happens; its caller says when m is dead.
func (c *company) depart(m *member) {
	c.ask(m)
	m.dying()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.control.Close()
	m.control = nil
	m.past, m.keys = m.past.Plus(m.last.Counts), m.keys+m.last.Keys
	m.last = traffic.Report{}
}

// takeLeave ends all traffic to and from m in order. What does not is a finding.
func (c *company) takeLeave(m *member) {
	c.left(m)
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, o := range c.members {
		agent := o.agent()
		if agent == nil {
			continue
		}
		wg.Go(func() {
			if o == m {
				errs[i] = agent.PartAll()
			} else {
				errs[i] = agent.Part(m.name)
			}
		})
	}
	wg.Wait()
	c.unended(errors.Join(errs...))
}

// end ends all traffic in order, likewise.
func (c *company) end() {
	c.left(c.members...)
	c.unended(c.each((*traffic.Controller).PartAll))
}

func (c *company) unended(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, err.Error())
}

func (c *company) present() []*member {
	return slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m.agent() == nil })
}

// each calls f for all agents at once.
func (c *company) each(f func(*traffic.Controller) error) error {
	all := c.present()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() {
			if err := f(m.agent()); err != nil {
				errs[i] = fmt.Errorf("%s: %w", m.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *company) calm(calm bool) error {
	return c.each(func(a *traffic.Controller) error { return a.Calm(calm) })
}

func (c *company) mark(t time.Time) error {
	return c.each(func(a *traffic.Controller) error { return a.Mark(t) })
}

// awaitResumption waits until all flows but streams have gone on after the mark, at most until ctx ends, and then some time for
// streams. It returns all flows.
func (c *company) awaitResumption(ctx context.Context, streams time.Duration) ([]traffic.Resumption, error) {
	var back time.Time // when all but streams were
	for {
		var mu sync.Mutex
		var all []traffic.Resumption
		err := c.each(func(a *traffic.Controller) error {
			r, err := a.Resumed()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, r...)
			return err
		})
		if err != nil {
			return nil, err
		}
		waiting, stalled := 0, 0
		for _, r := range all {
			switch {
			case !r.Back.IsZero():
			case r.Kind == traffic.Stream:
				stalled++
			default:
				waiting++
			}
		}
		if waiting == 0 && back.IsZero() {
			back = time.Now()
		}
		if waiting == 0 && (stalled == 0 || time.Since(back) > streams) || !sleep(ctx, 40*time.Millisecond) {
			return all, nil
		}
	}
}

// tell takes in what the agents have seen.
func (c *company) tell() {
	var wg sync.WaitGroup
	for _, m := range c.present() {
		wg.Go(func() { c.ask(m) })
	}
	wg.Wait()
}

// ask takes in what the agent of m has seen. One that is stopped does not answer.
func (c *company) ask(m *member) {
	m.mu.Lock()
	agent, known := m.control, m.known
	m.mu.Unlock()
	if agent == nil {
		return
	}
	r, err := agent.Tell(known)
	if err != nil {
		return // its process is stopped, or has ended, and that is seen elsewhere
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.control != agent || m.known != known {
		return // another was faster
	}
	m.known += len(r.Findings)
	m.last = r
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range r.Findings {
		f.Busy = c.busy != nil && c.busy(f.At.Add(-min(f.At.Sub(f.Began), traffic.EndLimit)), f.At)
		c.findings = append(c.findings, f)
	}
}

// lost are the datagrams lost in calm.
func (c *company) lost() []traffic.Finding { return c.with(oneOfFew) }

// counts is what all agents have done, present and past, and how many keys they have agreed.
func (c *company) counts() (traffic.Counts, uint64) {
	var sum traffic.Counts
	var keys uint64
	for _, m := range c.members {
		m.mu.Lock()
		sum = sum.Plus(m.past).Plus(m.last.Counts)
		keys += m.keys + m.last.Keys
		m.mu.Unlock()
	}
	return sum, keys
}

// inexcusable returns the findings that had no reason.
func (c *company) inexcusable() []traffic.Finding {
	return c.with(noExcuse)
}

// beside returns what else was seen of the stream a finding is about: by its other end, for the most part.
func (c *company) beside(f traffic.Finding) []traffic.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.findings), func(g traffic.Finding) bool {
		return !f.OfSameStream(g) || c.excuse(g) == noExcuse // which is told by itself, as f is
	})
}

// with returns the findings that have an excuse.
func (c *company) with(e excuse) []traffic.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.findings), func(f traffic.Finding) bool { return c.excuse(f) != e })
}

// excuse is the reason a finding has.
type excuse int

const (
	noExcuse  excuse = iota
	itsEnd           // its connection had an end that died, or a packet may be sent again
	machine          // something did not come in time, and the machine was busy with other things
	oneOfFew         // how many there are is judged, not each
	testimony        // it is not wrong by itself, and told beside what is
)

const (
	// sentAgain is how long after a peer's restart what was sent to the one before may be sent again. That one may have
	// delivered it to the kernel, and not lived to pass on the answer (docs/protocol.md, §19).
	sentAgain = 5 * time.Second

	// young is a connection of which the kernel may not know yet that its far end holds it to be made. While there is no
	// device it cannot ask again, and forgets it.
	young = 2 * time.Second
)

// excuse returns the reason of a finding: a connection may be lost once an end of it has died. On a machine that was busy
// what is short otherwise may take three times as long.
func (c *company) excuse(f traffic.Finding) excuse {
	sentAgain, young := sentAgain, young
	if f.Busy {
		sentAgain, young = 3*sentAgain, 3*young
	}
	for _, m := range c.members {
		if m.name != f.From && m.name != f.To {
			continue
		}
		m.mu.Lock()
		died := slices.ContainsFunc(m.deaths, func(s span) bool { return s.meets(f.Began, f.At) })
		sentTwice := slices.ContainsFunc(m.gaps, func(s span) bool { return !f.At.Before(s.to) && f.At.Sub(s.to) < sentAgain })
		forgotten := slices.ContainsFunc(m.gaps, func(s span) bool { return s.meets(f.Began, f.Began.Add(young)) })
		m.mu.Unlock()
		switch f.What {
		case traffic.Twice:
			if sentTwice && (m.name == f.To || f.Back) { // who has restarted was sent the question again, or the answer
				return itsEnd
			}
		case traffic.Broken, traffic.Unending, traffic.Refused:
			if died || forgotten {
				return itsEnd
			}
		}
	}
	switch f.What {
	case traffic.Lost:
		return oneOfFew
	case traffic.Witnessed:
		return testimony
	case traffic.Unending, traffic.Refused: // a stream has so much time that no machine is too busy for it
		if f.Late && f.Busy {
			return machine
		}
	}
	return noExcuse
}

// sleep reports whether ctx lives on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
