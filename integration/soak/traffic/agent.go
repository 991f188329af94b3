package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/integration/bench/load"
)

// Config says what an agent is to be.
type Config struct {
	Name    string
	Network load.Network
	Serves  bool // whether the network can be listened on
	Proxied bool // only TCP goes, and requests are HTTP
	Pings   bool // whether the network has raw sockets

	// Keys tells when the keys with each other member were agreed; nil where that is not known.
	Keys func() map[string]time.Time
}

// Pace is how much traffic there is between two members, for each family of addresses.
type Pace struct {
	Stream                  int           // bytes a second, each way
	Request, Datagram, Ping time.Duration // between two, on average
}

// Agent is one member. Its exported methods are those of net/rpc, called by a [Controller].
type Agent struct {
	name     string
	net      load.Network
	http     *http.Client // requests go by it; nil: they do not
	config   Config
	count    counters
	findings findings
	calm     calmness
	rate     atomic.Int64 // of streams that others began

	mu     sync.Mutex // guards what follows
	met    map[string]*acquaintance
	agreed map[string]time.Time // keys last seen
	keys   uint64               // how often they were new
}

// acquaintance is all flows to one other member.
type acquaintance struct {
	flows   []*flow
	stop    context.CancelFunc
	running sync.WaitGroup
}

// NewAgent returns an agent that serves, and has no flows yet.
func NewAgent(c Config) (*Agent, error) {
	a := &Agent{
		name: c.Name, net: c.Network, config: c,
		met: make(map[string]*acquaintance), agreed: make(map[string]time.Time),
	}
	if c.Proxied {
		a.http = &http.Client{Transport: &http.Transport{DialContext: c.Network.DialContext, DisableKeepAlives: true}}
	}
	if c.Serves {
		return a, a.serve()
	}
	return a, nil
}

func (a *Agent) streamRate() int { return max(1000, int(a.rate.Load())) }

// None is for methods that take or give nothing.
type None struct{}

// Target is another member to have flows to.
type Target struct {
	Name   string
	Addrs  []netip.Addr
	Serves bool // whether it can be asked for more than pings
	Pace   Pace
}

// Meet begins flows to a member, unless there are some.
func (a *Agent) Meet(t Target, _ *None) error {
	a.rate.Store(int64(t.Pace.Stream))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.met[t.Name] != nil {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &acquaintance{stop: stop}
	for _, addr := range t.Addrs {
		add := func(kind string, run func(context.Context, *flow)) {
			m.flows = append(m.flows, &flow{agent: a, kind: kind, to: t.Name, addr: addr, pace: t.Pace, run: run, kick: make(chan struct{}, 1)})
		}
		if t.Serves {
			add(Stream, repeatedly((*flow).stream))
			add(Request, runRequests)
			if !a.config.Proxied {
				add(Datagram, repeatedly((*flow).datagrams))
			}
		}
		if a.config.Pings {
			add(Ping, repeatedly((*flow).pings))
		}
	}
	for _, f := range m.flows {
		m.running.Go(func() {
			f.run(ctx, f)
			f.ended.Store(true)
		})
	}
	a.met[t.Name] = m
	return nil
}

// partLimit is how long the flows to a member may take to end in order, with some time to begin.
const partLimit = EndLimit + 30*time.Second

// Part ends the flows to a member in order.
func (a *Agent) Part(name string, _ *None) error {
	a.mu.Lock()
	m := a.met[name]
	delete(a.met, name)
	a.mu.Unlock()
	if m == nil {
		return nil
	}
	m.stop()
	if waitAtMost(&m.running, partLimit) {
		return nil
	}
	var stuck []string
	for _, f := range m.flows {
		if !f.ended.Load() {
			stuck = append(stuck, f.standing())
		}
	}
	return fmt.Errorf("flows from %s to %s that do not end within %v: %v", a.name, name, partLimit, stuck)
}

// PartAll ends all flows in order.
func (a *Agent) PartAll(None, *None) error {
	a.mu.Lock()
	var names []string
	for name := range a.met {
		names = append(names, name)
	}
	a.mu.Unlock()
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = a.Part(name, nil) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Calm tells whether from now on nothing is done to the network and its members.
func (a *Agent) Calm(calm bool, _ *None) error {
	a.calm.set(calm)
	return nil
}

// Mark says that from t on all flows should go on.
func (a *Agent) Mark(t time.Time, _ *None) error {
	for _, f := range a.flows() {
		f.setMark(t)
	}
	return nil
}

// Resumed tells which have.
func (a *Agent) Resumed(_ None, r *[]Resumption) error {
	for _, f := range a.flows() {
		*r = append(*r, f.resumption())
	}
	return nil
}

func (a *Agent) flows() []*flow {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*flow
	for _, m := range a.met {
		all = append(all, m.flows...)
	}
	return all
}

// Report is what an agent has seen so far, and what its process holds.
type Report struct {
	Counts
	Findings   []Finding // after those known
	Goroutines int
	LiveHeap   uint64 // bytes that the last collection left
	Keys       uint64 // keys agreed with others, as far as the member knows
}

// Tell reports; known is how many findings the caller has.
func (a *Agent) Tell(known int, r *Report) error {
	r.Counts = a.count.read()
	r.Findings = a.findings.after(known)
	r.Goroutines = runtime.NumGoroutine()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	r.LiveHeap = live[0].Value.Uint64()
	r.Keys = a.keysAgreed()
	return nil
}

func (a *Agent) keysAgreed() uint64 {
	if a.config.Keys == nil {
		return 0
	}
	now := a.config.Keys()
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, at := range now {
		if !at.IsZero() && !at.Equal(a.agreed[name]) {
			a.agreed[name] = at
			a.keys++
		}
	}
	return a.keys
}
