package engine

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A path is a way to a remote: a carrier and an address, or a circuit of a relay. It is compared
// by ==.
type path struct {
	carrier underlay.Carrier
	addr    netip.AddrPort // zero for a carrier between two fixed ends

	relay   *Remote // whose own path carries it; nil for a direct path
	circuit wire.CircuitID
}

// String names the path for people.
func (p path) String() string {
	switch {
	case p.relay != nil:
		return "relay " + p.relay.label()
	case p.addr.IsValid():
		return p.addr.String()
	}
	return "link"
}

// under resolves the path to what carries it at this moment: a carrier, an address, and the bytes that
// go before each datagram. ok is false for the circuit of a relay that is not reached.
func (p *path) under() (c underlay.Carrier, addr netip.AddrPort, ok bool) {
	if p.relay == nil {
		return p.carrier, p.addr, p.carrier != nil
	}
	base := p.relay.path.Load()
	if base == nil || base.relay != nil {
		return nil, netip.AddrPort{}, false
	}
	return base.carrier, base.addr, true
}

// prefixLen is how many bytes go before each datagram on the path.
func (p *path) prefixLen() int {
	if p.relay != nil {
		return wire.CircuitOverhead
	}
	return 0
}

// paths are all the ways to one remote that are known. Which one is in use is Remote.path.
type paths struct {
	endpoint  string // as configured, "host:port"; empty: none
	host      string // its host, when that is a name
	port      uint16
	addrs     []netip.AddrPort // what it resolved to
	resolving bool

	unresolved bool // the last time, which was logged

	links []underlay.Carrier // connections that may lead to it

	circuit path // by a relay; zero while there is none
	opening bool // a circuit was asked for
	closed  time.Time

	logged  time.Time // when a change was last logged
	changes int       // since then
}

// setEndpoint takes "host:port".
func (ps *paths) setEndpoint(s string) error {
	if s == "" {
		return nil
	}
	ps.endpoint = s
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("endpoint %q: want host:port", s)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 || host == "" {
		return fmt.Errorf("endpoint %q: want a host and a port from 1 to 65535", s)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		ps.addrs = []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), uint16(port))}
		return nil
	}
	ps.host, ps.port = host, uint16(port)
	return nil
}

// A name is looked up first, and again each time this many initiations went unanswered.
const resolveEvery = 4

// targets are the paths the try-th initiation of an attempt goes by. A remote that has an address of
// its own is tried there first, and by a relay as well when it does not answer.
// It is called with mu held.
func (r *Remote) targets(try int, now time.Time) []path {
	ps := &r.paths
	if ps.host != "" && try%resolveEvery == 0 {
		r.resolve()
	}
	var all []path
	add := func(p path) {
		if _, _, ok := p.under(); ok && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if p := r.path.Load(); p != nil && p.relay == nil {
		add(*p)
	}
	if c := r.engine.datagramCarrier(); c != nil {
		for _, a := range ps.addrs {
			add(path{carrier: c, addr: a})
		}
	}
	for _, c := range ps.links {
		add(path{carrier: c})
	}
	if r.relay || len(all) > 0 && try == 0 {
		return all
	}
	if ps.circuit.relay != nil {
		add(ps.circuit)
	}
	if ps.circuit.relay == nil || try > 0 {
		r.openCircuit(now) // answered at once, and then tried at once
	}
	return all
}

// resolve looks the endpoint's host up, beside everything else.
func (r *Remote) resolve() {
	ps := &r.paths
	if ps.resolving {
		return
	}
	e := r.engine
	ps.resolving = e.goroutine(func() {
		found, err := e.cfg.LookupHost(e.ctx, ps.host)
		r.mu.Lock()
		defer r.mu.Unlock()
		ps.resolving = false
		if r.closed {
			return
		}
		if err != nil {
			if !ps.unresolved {
				ps.unresolved = true
				e.log.Warn("endpoint does not resolve; it is looked up again and again", "remote", r.label(), "endpoint", ps.endpoint, "error", err)
			}
			return
		}
		ps.unresolved = false
		var addrs []netip.AddrPort
		for _, a := range found {
			addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), ps.port))
		}
		if len(addrs) > maxAddrs {
			addrs = addrs[:maxAddrs]
		}
		for _, a := range addrs {
			e.reaching(path{addr: a})
		}
		if !slices.Equal(addrs, ps.addrs) {
			ps.addrs = addrs
			if r.hs.active { // try the new ones now
				r.hs.due = time.Now()
				r.wake()
			}
		}
	})
}

// maxAddrs bounds how many addresses of a name an initiation is sent to.
const maxAddrs = 4

// setPath makes p the path in use. It is called with mu held, and the timer set after it: a new path is measured.
func (r *Remote) setPath(p path) {
	if have := r.path.Load(); have == nil || *have != p {
		r.engine.reaching(p)
		r.path.Store(&p)
		r.mtu.enter(p, r.engine.cfg.MTU)
	}
}

// reaching is called before something is sent by a path that is new.
func (e *Engine) reaching(p path) {
	if e.cfg.Reaching != nil && p.addr.IsValid() {
		e.cfg.Reaching(p.addr.Addr())
	}
}

// directFor is how long a direct path is believed in after something came by it. A
// packet by a circuit does not end it sooner.
const directFor = 10 * time.Second

// roam is called with an authentic packet, the newest of its session, that came another way than
// ours go. The remote has moved, or has another path; what we send follows it (§19.2). A session before counts as long as nothing
// has come by the current one: the remote may not know yet that this is in use, and what would tell it may go where it no longer is.
func (r *Remote) roam(s *session, from path, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current := r.current.Load(); r.closed || current == nil || current != s && current.heard.Load() {
		return
	}
	have := r.path.Load()
	if have != nil && have.relay == nil && from.relay != nil && now.Sub(r.life.receivedAt()) < directFor {
		return
	}
	if from.relay != nil {
		r.adoptCircuit(from)
	}
	if have == nil || *have != from {
		r.logPath(have, from, now)
		r.setPath(from)
		r.schedule(now)
	}
}

// logPath tells of another path, but not of each: whoever repeats a remote's packets faster than the network brings them,
// or runs a second process with its key, changes it with every packet. It is called with mu held.
func (r *Remote) logPath(have *path, p path, now time.Time) {
	ps := &r.paths
	ps.changes++
	if !ps.logged.IsZero() && now.Sub(ps.logged) < logPathEvery {
		return
	}
	was := "none"
	if have != nil {
		was = have.String()
	}
	r.engine.log.Info("path", "remote", r.label(), "was", was, "now", p.String(), "changes", ps.changes)
	ps.logged, ps.changes = now, 0
}

const logPathEvery = 10 * time.Second

// carrierAdded tells a remote of a new carrier. One between two fixed ends may lead to any remote
// whose endpoint is not known, and trying is the way to find out: the wrong one does not answer. A relay leaves
// that to its members.
func (r *Remote) carrierAdded(c underlay.Carrier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if !c.LocalAddr().IsValid() && r.paths.endpoint == "" && !r.learnt && r.engine.cfg.Serve == nil {
		r.paths.links = append(r.paths.links, c)
		r.startHandshake(time.Now())
		r.hs.due = time.Now() // also if it is one that has found no answer so far
	}
	if r.hs.active && r.hs.pending == nil {
		r.hs.due, r.hs.tries = time.Now(), 0 // there was no way to send anything yet
	}
	r.wakeIfBusy()
}

// linkIs is told who is at the other end of a carrier between two fixed ends: nobody else is.
func (e *Engine) linkIs(c underlay.Carrier, owner *Remote) {
	for _, r := range e.Remotes() {
		if r == owner {
			continue
		}
		r.mu.Lock()
		r.paths.links = slices.DeleteFunc(r.paths.links, func(have underlay.Carrier) bool { return have == c })
		if !r.keepUp() {
			r.cancelInitiation()
		}
		r.mu.Unlock()
	}
}

// carrierGone forgets all paths by a carrier that has ended.
func (r *Remote) carrierGone(c underlay.Carrier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths.links = slices.DeleteFunc(r.paths.links, func(have underlay.Carrier) bool { return have == c })
	if p := r.path.Load(); p != nil && p.carrier == c {
		r.path.Store(nil)
		if r.wanted(time.Now()) {
			r.startHandshake(time.Now())
		}
	}
	r.wake()
}
