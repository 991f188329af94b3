package socks

import (
	"net"
	"net/netip"
	"sync"
)

// connSet knows every listener, client and dialled connection of a Server, so
// that limits can be kept and Close can end them all and wait.
type connSet struct {
	max, maxPerClient int // set before the first use

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners map[net.Listener]struct{}
	clients   map[*client]struct{}
	targets   map[*target]struct{}
	perClient map[netip.Prefix]int

	// serving counts clients not yet released, and what else has entered. It
	// is added to only under mu while closed is false, so never during Wait.
	serving sync.WaitGroup
}

// client is a connection taken from a listener, held until release.
type client struct {
	net.Conn
	set     *connSet
	from    netip.Prefix // invalid: not counted by address
	release func()       // closes and forgets it; the first call counts
}

// target is a connection that Dial made, held until Close. What it can do
// beyond net.Conn (CloseWrite, SetLinger) is asked of the Conn inside.
type target struct {
	net.Conn
	set *connSet
}

// admission is the answer to a client that wants in.
type admission int

const (
	admitted admission = iota
	overMaxConns
	overMaxPerClient
	serverClosed
)

// admit takes conn in, or says why not and leaves it open.
func (s *connSet) admit(conn net.Conn) (*client, admission) {
	c := &client{Conn: conn, set: s, from: clientPrefix(conn.RemoteAddr())}
	c.release = sync.OnceFunc(func() {
		c.Conn.Close()
		s.forget(c)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, serverClosed
	case len(s.clients) >= s.max:
		return nil, overMaxConns
	case c.from.IsValid() && s.perClient[c.from] >= s.maxPerClient:
		return nil, overMaxPerClient
	}
	if s.clients == nil {
		s.clients = make(map[*client]struct{})
		s.perClient = make(map[netip.Prefix]int)
	}
	s.clients[c] = struct{}{}
	if c.from.IsValid() {
		s.perClient[c.from]++
	}
	s.serving.Add(1)
	return c, admitted
}

func (s *connSet) forget(c *client) {
	s.mu.Lock()
	delete(s.clients, c)
	if c.from.IsValid() {
		if s.perClient[c.from]--; s.perClient[c.from] <= 0 {
			delete(s.perClient, c.from)
		}
	}
	s.mu.Unlock()
	s.serving.Done()
}

// clientPrefix is what the limit for one client counts by: the address, or
// the /64 of an IPv6 address, which is the least that one customer is given.
// It is invalid for loopback and for what is not an IP address.
func clientPrefix(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !addr.IsValid() || addr.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// hold remembers a dialled connection until it is closed through the returned
// value. On a closed set it closes conn and returns net.ErrClosed.
func (s *connSet) hold(conn net.Conn) (*target, error) {
	t := &target{Conn: conn, set: s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		if s.targets == nil {
			s.targets = make(map[*target]struct{})
		}
		s.targets[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	return t, nil
}

// Close forgets the connection and closes it.
func (t *target) Close() error {
	t.set.mu.Lock()
	delete(t.set.targets, t)
	t.set.mu.Unlock()
	return t.Conn.Close()
}

// enter makes close wait for the caller, until it calls serving.Done. It
// reports false, and close does not wait, on a closed set.
func (s *connSet) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.serving.Add(1)
	return true
}

// addListener reports false on a closed set.
func (s *connSet) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *connSet) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *connSet) active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// close ends everything and waits for it. Connections are reset, not ended in
// order: a client must not take half a download for the whole.
func (s *connSet) close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.clients {
		reset(c.Conn)
	}
	for t := range s.targets {
		reset(t.Conn)
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// reset closes conn so that its other end sees a failure, where conn can say so.
func reset(conn net.Conn) {
	if l, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // only fails on a connection that is gone
	}
	conn.Close()
}
