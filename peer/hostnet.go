package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A hostNetwork is the network of a peer in TUN mode: the host's own stack, kept to the overlay addresses
// of this peer, with the calls and the errors of netstack.Stack.
//
// Where a program listens on all addresses, it gets a socket on each overlay address, and never the host's
// wildcard: what is offered on the overlay must not appear on the host's other networks. Several
// sockets then pose as one (see group).
type hostNetwork struct {
	addresses []netip.Prefix
	dialer    net.Dialer
	listen    net.ListenConfig
}

// newHostNetwork returns the network of the overlay addresses given, which an interface of the host has.
func newHostNetwork(addresses []netip.Prefix) *hostNetwork {
	h := &hostNetwork{addresses: slices.Clone(addresses)}
	// Package net listens with Multipath TCP where it can, which may move a connection to other
	// addresses of the two hosts: out of the overlay, in the clear.
	h.dialer.SetMultipathTCP(false)
	h.listen.SetMultipathTCP(false)
	return h
}

// DialContext connects to an IP literal with a port number or service name: tcp, tcp4, tcp6, udp, udp4 or
// udp6. The host's routes choose the source address. An empty host is this peer.
func (h *hostNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	a, err := parseHostAddr(ctx, network, address)
	if err == nil && a.wildcard() {
		if own := h.local(a); len(own) > 0 {
			a.ip = own[0].Addr()
		} else {
			err = os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: a.netAddr(), Err: err}
	}
	return h.dialer.DialContext(ctx, network, netip.AddrPortFrom(a.ip, a.port).String())
}

// Listen announces on an own overlay address with a port: tcp, tcp4 or tcp6. An empty host is all of them,
// of both families for "tcp"; so is "::". Port 0 picks one. A single address gives a
// *net.TCPListener.
func (h *hostNetwork) Listen(network, address string) (net.Listener, error) {
	a, own, err := h.parseListen(network, address, "tcp")
	if err != nil {
		return nil, err
	}
	listeners, port, err := bindAll(own, a.port, func(at string) (*net.TCPListener, net.Addr, error) {
		l, err := h.listen.Listen(context.Background(), network, at)
		if err != nil {
			return nil, nil, err
		}
		return l.(*net.TCPListener), l.Addr(), nil
	})
	if err != nil {
		return nil, err
	}
	if len(listeners) == 1 {
		return listeners[0], nil
	}
	return newListenerGroup(net.TCPAddrFromAddrPort(unspecified(own, port)), listeners), nil
}

// ListenPacket opens a UDP socket at an own overlay address with a port: udp, udp4 or udp6. An empty host is
// all of them, of both families for "udp"; so is "::". Port 0 picks one. A single address gives a
// *net.UDPConn.
func (h *hostNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	a, own, err := h.parseListen(network, address, "udp")
	if err != nil {
		return nil, err
	}
	conns, port, err := bindAll(own, a.port, func(at string) (*net.UDPConn, net.Addr, error) {
		c, err := h.listen.ListenPacket(context.Background(), network, at)
		if err != nil {
			return nil, nil, err
		}
		return c.(*net.UDPConn), c.LocalAddr(), nil
	})
	if err != nil {
		return nil, err
	}
	if len(conns) == 1 {
		return conns[0], nil
	}
	return newPacketGroup(net.UDPAddrFromAddrPort(unspecified(own, port)), own, conns), nil
}

// parseListen reads where to listen, and returns the own addresses that stands for, at least one.
func (h *hostNetwork) parseListen(network, address, transport string) (hostAddr, []netip.Prefix, error) {
	a, err := parseHostAddr(context.Background(), network, address)
	if err == nil && a.transport != transport {
		a, err = hostAddr{}, net.UnknownNetworkError(network)
	}
	own := h.local(a)
	if err == nil && len(own) == 0 {
		err = os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	if err != nil {
		return a, nil, &net.OpError{Op: "listen", Net: network, Addr: a.netAddr(), Err: err}
	}
	return a, own, nil
}

// local returns the own addresses that a stands for.
func (h *hostNetwork) local(a hostAddr) (own []netip.Prefix) {
	for _, p := range h.addresses {
		if a.covers(p.Addr()) {
			own = append(own, p)
		}
	}
	return own
}

// A hostAddr is a network and address as given to a call like Dial, taken apart.
type hostAddr struct {
	transport string     // "tcp" or "udp"
	family    byte       // '4', '6', or 0 for either
	ip        netip.Addr // invalid for an empty host
	port      uint16
}

// parseHostAddr reads network and address. Errors are those of package net.
func parseHostAddr(ctx context.Context, network, address string) (a hostAddr, err error) {
	switch network {
	case "tcp", "udp":
		a.transport = network
	case "tcp4", "tcp6", "udp4", "udp6":
		a.transport, a.family = network[:3], network[3]
	default:
		return hostAddr{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return hostAddr{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return hostAddr{}, err
	}
	a.port = uint16(port)
	if host == "" {
		return a, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		return hostAddr{}, &net.AddrError{Err: "no IP address", Addr: host}
	}
	a.ip = ip.Unmap()
	if a.family == '4' && !a.ip.Is4() || a.family == '6' && !a.ip.Is6() {
		return hostAddr{}, &net.AddrError{Err: "no address of the network's family", Addr: host}
	}
	return a, nil
}

func (a hostAddr) wildcard() bool { return !a.ip.IsValid() || a.ip.IsUnspecified() }

// covers reports whether a is own, or stands for all own addresses and own is of the right family. As in
// package net, "0.0.0.0" is those of IPv4, and "::" those of either family unless the network says otherwise.
func (a hostAddr) covers(own netip.Addr) bool {
	switch {
	case !a.wildcard():
		return a.ip == own
	case a.family == '4' || a.ip.Is4():
		return own.Is4()
	case a.family == '6':
		return own.Is6()
	}
	return true
}

// netAddr returns a as package net would have it in an error, nil for the zero hostAddr.
func (a hostAddr) netAddr() net.Addr {
	switch a.transport {
	case "tcp":
		return &net.TCPAddr{IP: a.ip.AsSlice(), Port: int(a.port)}
	case "udp":
		return &net.UDPAddr{IP: a.ip.AsSlice(), Port: int(a.port)}
	}
	return nil
}

// unspecified returns the address by which a group of sockets on the own addresses goes, as a
// wildcard socket would.
func unspecified(own []netip.Prefix, port uint16) netip.AddrPort {
	for _, p := range own {
		if p.Addr().Is6() {
			return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
		}
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// portPicks is how often bindAll lets the system pick a port.
const portPicks = 16

// bindAll opens a socket on each own address, all at one port, and returns them in the order of own. Port 0 is
// one that is free on all: the system picks it for the first address, and again if another address does not
// have it free.
func bindAll[S io.Closer](own []netip.Prefix, port uint16, bind func(at string) (S, net.Addr, error)) ([]S, uint16, error) {
	for pick := 1; ; pick++ {
		sockets, bound, err := bindOnce(own, port, bind)
		if err == nil {
			return sockets, bound, nil
		}
		for _, s := range sockets {
			s.Close()
		}
		if port != 0 || len(sockets) == 0 || pick == portPicks {
			return nil, 0, err
		}
	}
}

// bindOnce returns the sockets opened until an error, and their port.
func bindOnce[S io.Closer](own []netip.Prefix, port uint16, bind func(at string) (S, net.Addr, error)) ([]S, uint16, error) {
	var sockets []S
	for _, p := range own {
		s, at, err := bind(netip.AddrPortFrom(p.Addr(), port).String())
		if err != nil {
			return sockets, port, err
		}
		sockets = append(sockets, s)
		if port == 0 {
			port = at.(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()
		}
	}
	return sockets, port, nil
}

// A group is several sockets of kind S that pose as one. A goroutine for each gets an arrival from it and
// offers that to whoever takes next; there is no queue besides, so that what is not taken waits in the system, and
// the system bounds it.
type group[S io.Closer, T any] struct {
	sockets  []S
	arrivals chan T
	deadline deadline // of take

	closing sync.Once
	closed  chan struct{}
	running sync.WaitGroup
}

// start runs receive for each socket. It must return when its socket is closed.
func (g *group[S, T]) start(receive func(S)) {
	g.arrivals, g.closed = make(chan T), make(chan struct{})
	for _, s := range g.sockets {
		g.running.Go(func() { receive(s) })
	}
}

// offer returns when the arrival has been taken. It is false if the group was closed before.
func (g *group[S, T]) offer(arrival T) bool {
	select {
	case g.arrivals <- arrival:
		return true
	case <-g.closed:
		return false
	}
}

// take waits for an arrival. The error is net.ErrClosed or os.ErrDeadlineExceeded.
func (g *group[S, T]) take() (arrival T, err error) {
	passed := g.deadline.passed()
	switch {
	case isDone(g.closed):
		return arrival, net.ErrClosed
	case isDone(passed):
		return arrival, os.ErrDeadlineExceeded
	}
	select {
	case arrival = <-g.arrivals:
		return arrival, nil
	case <-g.closed:
		return arrival, net.ErrClosed
	case <-passed:
		return arrival, os.ErrDeadlineExceeded
	}
}

// setDeadline sets the deadline of take.
func (g *group[S, T]) setDeadline(t time.Time) error {
	if isDone(g.closed) {
		return net.ErrClosed
	}
	g.deadline.set(t)
	return nil
}

// close closes all sockets and returns when all goroutines have ended. The second time it is net.ErrClosed.
func (g *group[S, T]) close() error {
	err := net.ErrClosed
	g.closing.Do(func() {
		close(g.closed)
		err = nil
		for _, s := range g.sockets {
			err = errors.Join(err, s.Close())
		}
		g.running.Wait()
		g.deadline.set(time.Time{}) // leaves no timer behind
	})
	return err
}

// An acceptance is what Accept of one listener returned.
type acceptance struct {
	conn net.Conn
	err  error
}

// A listenerGroup is a listener on several addresses. Besides net.Listener it has SetDeadline of
// *net.TCPListener.
type listenerGroup struct {
	group[*net.TCPListener, acceptance]
	addr *net.TCPAddr
}

var _ net.Listener = (*listenerGroup)(nil)

func newListenerGroup(addr *net.TCPAddr, listeners []*net.TCPListener) *listenerGroup {
	l := &listenerGroup{addr: addr}
	l.sockets = listeners
	l.start(l.acceptFrom)
	return l
}

// acceptFrom offers what Accept of one listener returns. Its errors, too: the caller of Accept decides whether,
// and how soon, to go on.
func (l *listenerGroup) acceptFrom(listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !l.offer(acceptance{conn, err}) {
			if err == nil {
				conn.Close()
			}
			return
		}
	}
}

func (l *listenerGroup) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.addr, Err: err}
}

// Accept implements net.Listener.
func (l *listenerGroup) Accept() (net.Conn, error) {
	a, err := l.take()
	if err != nil {
		return nil, l.opError("accept", err)
	}
	return a.conn, a.err
}

// Close ends the listener; connections not yet accepted are closed.
func (l *listenerGroup) Close() error {
	if err := l.close(); err != nil {
		return l.opError("close", err)
	}
	return nil
}

// Addr is the unspecified address with the port.
func (l *listenerGroup) Addr() net.Addr { return l.addr }

// SetDeadline sets the deadline of Accept.
func (l *listenerGroup) SetDeadline(t time.Time) error {
	if err := l.setDeadline(t); err != nil {
		return l.opError("set", err)
	}
	return nil
}

// maxDatagram is more than any datagram holds: IP counts its bytes in 16 bits.
const maxDatagram = 1<<16 - 1

// A datagram is what a read from one socket returned.
type datagram struct {
	payload []byte // the socket's buffer, lent until a send to done
	from    netip.AddrPort
	err     error
	done    chan<- struct{}
}

// A packetGroup is a UDP socket on several addresses. Besides net.PacketConn it has the AddrPort methods of
// *net.UDPConn.
type packetGroup struct {
	group[*net.UDPConn, datagram]
	own   []netip.Prefix // of sockets, by index
	local *net.UDPAddr
}

var _ net.PacketConn = (*packetGroup)(nil)

func newPacketGroup(local *net.UDPAddr, own []netip.Prefix, conns []*net.UDPConn) *packetGroup {
	c := &packetGroup{own: own, local: local}
	c.sockets = conns
	c.start(c.readFrom)
	return c
}

// readFrom offers what arrives at one socket, and its errors.
func (c *packetGroup) readFrom(socket *net.UDPConn) {
	buffer := make([]byte, maxDatagram)
	done := make(chan struct{}, 1)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !c.offer(datagram{buffer[:n], from, err, done}) {
			return
		}
		<-done
	}
}

func (c *packetGroup) opError(op string, to net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.local, Addr: to, Err: err}
}

// ReadFromUDPAddrPort reads one datagram; what does not fit into b is lost.
func (c *packetGroup) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	d, err := c.take()
	if err != nil {
		return 0, netip.AddrPort{}, c.opError("read", nil, err)
	}
	n := copy(b, d.payload)
	d.done <- struct{}{} // has room: its receiver waits for one at a time
	return n, d.from, d.err
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *packetGroup) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn; addr must be a *net.UDPAddr.
func (c *packetGroup) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*net.UDPAddr)
	if !ok || a == nil {
		return 0, c.opError("write", addr, syscall.EINVAL)
	}
	return c.WriteToUDPAddrPort(b, a.AddrPort())
}

// WriteToUDPAddrPort sends b as one datagram. The unspecified address is this peer.
func (c *packetGroup) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	ip := to.Addr().Unmap()
	if !ip.IsValid() || ip.Zone() != "" {
		return 0, c.opError("write", net.UDPAddrFromAddrPort(to), syscall.EINVAL)
	}
	if isDone(c.closed) {
		return 0, c.opError("write", net.UDPAddrFromAddrPort(to), net.ErrClosed)
	}
	i := c.sender(ip)
	if i < 0 {
		err := os.NewSyscallError("sendto", syscall.ENETUNREACH)
		return 0, c.opError("write", net.UDPAddrFromAddrPort(to), err)
	}
	if ip.IsUnspecified() {
		ip = c.own[i].Addr()
	}
	return c.sockets[i].WriteToUDPAddrPort(b, netip.AddrPortFrom(ip, to.Port()))
}

// sender returns the index of the socket to send from to ip, as the system would choose the source
// address of a wildcard socket: of the address's family, and if there are several on the address's own network,
// the one that has most in common with it; of equals the first. It is -1 if there is none.
func (c *packetGroup) sender(ip netip.Addr) int {
	best, bits := -1, -1
	for i, p := range c.own {
		if p.Addr().Is4() != ip.Is4() {
			continue
		}
		common := 0
		if p.Contains(ip) {
			common = p.Bits()
		}
		if common > bits {
			best, bits = i, common
		}
	}
	if best < 0 && ip == netip.IPv6Unspecified() {
		return 0 // any address is this peer
	}
	return best
}

// Close ends the socket.
func (c *packetGroup) Close() error {
	if err := c.close(); err != nil {
		return c.opError("close", nil, err)
	}
	return nil
}

// LocalAddr is the unspecified address with the port.
func (c *packetGroup) LocalAddr() net.Addr { return c.local }

func (c *packetGroup) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *packetGroup) SetReadDeadline(t time.Time) error {
	if err := c.setDeadline(t); err != nil {
		return c.opError("set", nil, err)
	}
	return nil
}

func (c *packetGroup) SetWriteDeadline(t time.Time) error {
	for _, s := range c.sockets {
		if err := s.SetWriteDeadline(t); err != nil {
			return err
		}
	}
	return nil
}

// A deadline is a time that can be moved, even from the past back into the future. The zero value is one that
// never passes.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when the deadline passes; made when first needed
}

// passed returns a channel that is closed when the deadline has passed: the one that is set now, or one set later
// while that had not.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

// set moves the deadline to t; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // its function has closed this, or is about to
	}
	d.timer = nil
	if d.over == nil || isDone(d.over) {
		d.over = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	over := d.over
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(over) })
		return
	}
	close(over)
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
