package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// RemoteConfig is what is known of a remote in advance.
type RemoteConfig struct {
	Name         string
	PublicKey    wire.PublicKey
	PresharedKey wire.PresharedKey // zero: the engine's, or none for a relay

	// Endpoint is where the remote listens on the underlay, "host:port", the host an address or a name
	// that is looked up again whenever the remote does not answer. It may be empty.
	Endpoint string

	// AllowedIPs are the overlay addresses that are the remote's: where packets for it go, and
	// the only ones it may send from. When there are none, they are what the relays' directory says.
	AllowedIPs []netip.Prefix

	// Relay: the remote is a relay of ours. A session with it is kept at all times, and remotes
	// without a path of their own are reached through it.
	Relay bool
}

// A Remote is another member of the overlay, seen from here.
type Remote struct {
	engine *Engine
	key    wire.PublicKey
	relay  bool
	told   bool // its addresses are what a directory says, not configuration

	// Snapshots for the way of packets. They are written under mu.
	current atomic.Pointer[session] // seals; nil while there is none
	path    atomic.Pointer[path]    // nil while none is known

	traffic trafficCounters
	life    liveness
	mtu     pathMTU
	unheard unheard

	controls *rate.Limiter // control messages it may send

	mu     sync.Mutex // guards what follows, control's part
	name   string
	psk    wire.PresharedKey
	allow  []netip.Prefix
	learnt bool // from a directory, and forgotten when idle
	closed bool

	hs    initiating
	keys  keyring
	held  held
	paths paths
	pings pinging

	timer *time.Timer
	woken atomic.Bool
}

// AddRemote makes a remote known. Those with an endpoint, and relays, are connected to at once
// and for good; the others when there is something to send.
func (e *Engine) AddRemote(c RemoteConfig) (*Remote, error) {
	if err := c.PublicKey.Check(); err != nil {
		return nil, fmt.Errorf("engine: remote %q: %w", c.Name, err)
	}
	if c.PublicKey == e.PublicKey() {
		return nil, fmt.Errorf("engine: remote %q has our own public key", c.Name)
	}
	for _, p := range c.AllowedIPs {
		if err := wire.CheckPrefix(p); err != nil {
			return nil, fmt.Errorf("engine: remote %q: %w", c.Name, err)
		}
	}
	r := e.newRemote(c)
	if err := r.paths.setEndpoint(c.Endpoint); err != nil {
		return nil, fmt.Errorf("engine: remote %q: %w", c.Name, err)
	}
	if err := e.enter(r); err != nil {
		return nil, fmt.Errorf("engine: remote %q: %w", c.Name, err)
	}
	e.routes.add(r, r.allow)
	if r.relay {
		e.routes.ask(e.cfg.Addresses)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeIfBusy()
	return r, nil
}

func (e *Engine) newRemote(c RemoteConfig) *Remote {
	psk := c.PresharedKey
	if psk.IsZero() && !c.Relay {
		psk = e.cfg.PresharedKey
	}
	r := &Remote{
		engine: e, key: c.PublicKey, relay: c.Relay, told: len(c.AllowedIPs) == 0,
		name: c.Name, psk: psk, allow: slices.Clone(c.AllowedIPs),
		controls: rate.NewLimiter(controlsPerSecond, controlsAtOnce),
	}
	r.hs.cookie = wire.NewCookie(c.PublicKey)
	r.life.epoch = time.Now()
	return r
}

// enter puts r into the engine's book and gives it its timer.
func (e *Engine) enter(r *Remote) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("engine is closed")
	}
	if e.remotes[r.key] != nil {
		return fmt.Errorf("public key %v is another remote's already", r.key)
	}
	e.remotes[r.key] = r
	e.local.Know(r.key)
	if r.relay {
		e.relays = append(e.relays, r)
	}
	r.timer = time.AfterFunc(never, r.tick)
	return nil
}

// Remote returns the remote with that key, nil if there is none.
func (e *Engine) Remote(k wire.PublicKey) *Remote {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.remotes[k]
}

// Remotes returns all remotes, in no order.
func (e *Engine) Remotes() []*Remote {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.listRemotes()
}

func (e *Engine) listRelays() []*Remote {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.relays)
}

const never = 1 << 62 * time.Nanosecond

// wake makes the remote look after its affairs now. It takes no lock.
func (r *Remote) wake() {
	if !r.woken.Swap(true) {
		r.timer.Reset(0)
	}
}

// wakeIfBusy spares remotes that have nothing to do: each that wakes is a goroutine, and a relay has thousands of them at
// its start. It is called with mu held.
func (r *Remote) wakeIfBusy() {
	if r.keepUp() || r.hs.active {
		r.wake()
	}
}

// tick is the only timer's function: each part does what is due, and the timer is set to the
// earliest of what they wait for.
func (r *Remote) tick() {
	if !r.engine.begin() {
		return
	}
	defer r.engine.wg.Done()
	r.woken.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := time.Now()
	r.advanceKeys(now)
	r.advanceLiveness(now)
	r.advanceHandshake(now)
	r.advanceMTU(now)
	r.advanceHeld(now)
	if r.idleSince(now) > forgetLearnt && r.learnt {
		r.forget()
		return
	}
	r.schedule(now)
}

// begin counts a timer's function among what Close waits for.
func (e *Engine) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.wg.Add(1)
	return true
}

// schedule sets the timer. It is called with mu held.
func (r *Remote) schedule(now time.Time) {
	due := earliest(r.keysDeadline(), r.livenessDeadline(now), r.mtuDeadline(), r.hs.deadline(), r.held.deadline())
	if r.learnt {
		due = earliest(due, now.Add(forgetLearnt))
	}
	if due.IsZero() {
		r.timer.Stop()
	} else {
		r.timer.Reset(max(0, due.Sub(now)))
	}
	if r.woken.Load() {
		r.timer.Reset(0)
	}
}

// earliest returns the first of the times that are set.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// waitedFor is told that something waits for a session with the remote.
func (r *Remote) waitedFor(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Load() == nil {
		r.hurry(now)
	}
}

// forgetLearnt is how long a remote that only a directory named is kept without use or session.
const forgetLearnt = 10 * time.Minute

// idleSince is how long nothing has been sent to or received from the remote; 0 while there is a session.
func (r *Remote) idleSince(now time.Time) time.Duration {
	if r.current.Load() != nil || r.keys.next != nil || r.hs.active {
		return 0
	}
	return now.Sub(r.life.latest())
}

// forget removes a remote from the engine. It is called with mu held.
func (r *Remote) forget() {
	r.closed = true
	e := r.engine
	r.releaseFormer(len(r.keys.former))
	e.routes.remove(r, r.allow)
	e.circuits.remove(r.paths.circuit)
	e.mu.Lock()
	delete(e.remotes, r.key)
	e.local.Forget(r.key)
	e.mu.Unlock()
}

// close ends the remote for good, with the engine.
func (r *Remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.timer.Stop()
	r.cancelInitiation()
	r.dropSessions()
	r.engine.local.Forget(r.key)
	r.held.clear(r.engine)
}

// Name is what the remote is called; possibly nothing.
func (r *Remote) Name() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// PublicKey identifies the remote.
func (r *Remote) PublicKey() wire.PublicKey { return r.key }

// AllowedIPs are the overlay addresses that are the remote's.
func (r *Remote) AllowedIPs() []netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.allow)
}

// Address is where the remote is now: the carrier and address of its path. ok is false while there is
// no session, or the path is a circuit.
func (r *Remote) Address() (c underlay.Carrier, addr netip.AddrPort, ok bool) {
	p := r.path.Load()
	if p == nil || p.relay != nil || r.current.Load() == nil {
		return nil, netip.AddrPort{}, false
	}
	return p.carrier, p.addr, true
}

// RemoteStatus is a snapshot of a remote.
type RemoteStatus struct {
	Name          string         `json:"name,omitempty"`
	PublicKey     wire.PublicKey `json:"public_key"`
	AllowedIPs    []netip.Prefix `json:"allowed_ips"`
	Relay         bool           `json:"relay"`
	Connected     bool           `json:"connected"`               // there is a session
	Since         time.Time      `json:"since,omitzero"`          // when its keys were agreed
	LastReceived  time.Time      `json:"last_received,omitzero"`  // when the remote was last heard of; zero: never
	Endpoint      netip.AddrPort `json:"endpoint,omitzero"`       // where packets go: to the remote, or to the relay; zero for streams
	Via           string         `json:"via,omitempty"`           // the relay's name or key when the path is a circuit
	RoundTripTime time.Duration  `json:"round_trip_ns,omitempty"` // as a probe last measured it; 0: not measured
	MTU           int            `json:"mtu,omitempty"`           // the longest packet that the path carries whole, and the device can use; 0: not measured
	Traffic       Traffic        `json:"traffic"`
}

// Status returns the remote's state as it is now.
func (r *Remote) Status() RemoteStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := RemoteStatus{
		Name: r.name, PublicKey: r.key, AllowedIPs: append([]netip.Prefix{}, r.allow...), Relay: r.relay,
		LastReceived: r.life.receivedAt(), RoundTripTime: r.life.rtt, Traffic: r.traffic.snapshot(),
	}
	if s := r.current.Load(); s != nil {
		st.Connected, st.Since = true, s.established
	}
	if p := r.path.Load(); p != nil {
		_, st.Endpoint, _ = p.under()
		if p.relay != nil {
			st.Via = p.relay.label()
		}
		if r.mtu.found.Load() {
			st.MTU = int(r.mtu.fits.Load())
		}
	}
	return st
}

// label names the remote for people. The name of a relay does not change, so it takes no lock.
func (r *Remote) label() string {
	if r.name != "" {
		return r.name
	}
	return r.key.String()
}
