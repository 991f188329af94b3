package peer

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

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
