package traffic

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Kinds of flows.
const (
	Stream   = "stream"
	Request  = "request"
	Datagram = "datagram"
	Ping     = "ping"
)

// A flow is traffic of one kind to one address of another member.
type flow struct {
	agent *Agent
	kind  string
	to    string // the member
	addr  netip.Addr
	pace  Pace
	run   func(ctx context.Context, f *flow)
	kick  chan struct{}        // of one: the next one is due now
	ended atomic.Bool          // run has returned
	talk  atomic.Pointer[talk] // the last there was, of a stream

	mu   sync.Mutex // guards what follows
	mark time.Time  // a cause was over then; zero: none was
	back time.Time  // when what began after the mark first came to its end
}

// at is a port of the other member, as package net writes it.
func (f *flow) at(port int) string { return net.JoinHostPort(f.addr.String(), strconv.Itoa(port)) }

// standing says how far a flow is that does not end.
func (f *flow) standing() string {
	s := f.kind + " " + f.family()
	if t := f.talk.Load(); t != nil {
		s += " (" + t.standing() + ")"
	}
	return s
}

// family is "IPv4" or "IPv6".
func (f *flow) family() string { return family(f.addr) }

func family(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// repeatedly runs what ends when a connection or socket does, and again after that, until ctx ends.
func repeatedly(once func(*flow, context.Context)) func(context.Context, *flow) {
	return func(ctx context.Context, f *flow) {
		for {
			once(f, ctx)
			if !pause(ctx, again) {
				return
			}
		}
	}
}

// setMark forgets what came before t.
func (f *flow) setMark(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mark, f.back = t, time.Time{}
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// next waits until the next one is due, on average after d, and at once when there is a new mark. It reports whether ctx lives on.
func (f *flow) next(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-f.kick:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// succeeded notes that something that began at a time is done, now.
func (f *flow) succeeded(began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mark.IsZero() && f.back.IsZero() && !began.Before(f.mark) {
		f.back = time.Now()
	}
}

// A Resumption says whether a flow has gone on after the mark.
type Resumption struct {
	From, To, Kind, Family string
	Back                   time.Time // zero: not yet
}

func (f *flow) resumption() Resumption {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Resumption{From: f.agent.name, To: f.to, Kind: f.kind, Family: f.family(), Back: f.back}
}

// find tells of something wrong.
func (f *flow) find(what Wrong, began time.Time, err error) {
	f.agent.findings.add(Finding{
		What: what, From: f.agent.name, To: f.to, Flow: f.kind + " " + f.family(), Began: began, At: time.Now(), Error: err.Error(),
		Late: late(err), Back: true,
	})
}

// pause waits, and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
