package netstack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// udpConn is a UDP socket. It is a net.Conn if it is connected, and a net.PacketConn always, with the AddrPort methods
// of *net.UDPConn besides.
type udpConn struct {
	s       *Stack
	ep      tcpip.Endpoint
	wq      *waiter.Queue
	local   *net.UDPAddr
	remote  *net.UDPAddr // nil: not connected
	queue   udpQueue
	reads   waitPoint
	writes  waitPoint
	payload bytes.Reader // what is being written; held by who has the turn
	closing sync.Once
	closed  chan struct{}
}

var (
	_ net.Conn       = (*udpConn)(nil)
	_ net.PacketConn = (*udpConn)(nil)
)

// newUDPConn takes over a bound or connected endpoint. protocol is what it was made with.
func newUDPConn(s *Stack, wq *waiter.Queue, ep tcpip.Endpoint, protocol tcpip.NetworkProtocolNumber) *udpConn {
	c := &udpConn{s: s, ep: ep, wq: wq, closed: make(chan struct{})}
	// gVisor gives a datagram that may not be fragmented no identification, and then fragments it when it is too long: the
	// fragments of all would be taken for those of one (RFC 6864, section 4.3).
	ep.SetSockOptInt(tcpip.MTUDiscoverOption, int(tcpip.PMTUDiscoveryDont))
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = net.UDPAddrFromAddrPort(addrPortOf(a, protocol))
	}
	if a, err := ep.GetRemoteAddress(); err == nil {
		c.remote = net.UDPAddrFromAddrPort(addrPortOf(a, protocol))
	}
	c.reads.event = make(chan struct{}, 1)
	c.reads.entry.Init(arrival{c}, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr)
	wq.EventRegister(&c.reads.entry)
	c.take() // what came before the entry was there
	c.writes.watch(wq, waiter.WritableEvents|waiter.EventHUp|waiter.EventErr)
	return c
}

// arrival is told of what comes in, by the goroutine that brought it.
type arrival struct{ c *udpConn }

// NotifyEvent implements waiter.EventListener.
func (a arrival) NotifyEvent(mask waiter.EventMask) {
	// At its end the endpoint may be locked: the reader finds out for itself.
	if mask&waiter.EventHUp == 0 {
		a.c.take()
	}
	signal(a.c.reads.event)
}

// take moves what the endpoint has to the queue.
func (c *udpConn) take() {
	if dropped := c.queue.fill(c.ep); dropped > 0 {
		c.s.stats.udpOverflow.Add(uint64(dropped))
	}
}

func (c *udpConn) opError(op string, to net.Addr, err error) error {
	if to == nil {
		to = c.RemoteAddr()
	}
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: to, Err: err}
}

func (c *udpConn) failure(call string, err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrClosedForReceive, *tcpip.ErrClosedForSend, *tcpip.ErrInvalidEndpointState:
		return net.ErrClosed // there is no half-close: only Close of the stack does this
	}
	return callError(call, err)
}

// ReadFromUDPAddrPort reads one datagram; what does not fit into b is lost.
func (c *udpConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	c.reads.turn.Lock()
	defer c.reads.turn.Unlock()
	if err := c.reads.ready(c.closed, net.ErrClosed); err != nil {
		return 0, netip.AddrPort{}, c.opError("read", nil, err)
	}
	for {
		d, ok := c.queue.pop()
		if !ok {
			c.take()
			d, ok = c.queue.pop()
		}
		switch {
		case ok && d.err == nil:
			return copy(b, d.b), d.from, nil
		case ok:
			return 0, netip.AddrPort{}, c.opError("read", nil, c.failure("read", d.err))
		}
		if err := c.reads.wait(c.closed, net.ErrClosed); err != nil {
			return 0, netip.AddrPort{}, c.opError("read", nil, err)
		}
	}
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// Read implements net.Conn.
func (c *udpConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromUDPAddrPort(b)
	return n, err
}

// Write implements net.Conn. A socket that is not connected has nowhere to send it.
func (c *udpConn) Write(b []byte) (int, error) { return c.write(b, nil, nil) }

// WriteTo implements net.PacketConn; addr must be a *net.UDPAddr.
func (c *udpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*net.UDPAddr)
	if !ok || a == nil {
		return 0, c.opError("write", addr, syscall.EINVAL)
	}
	return c.writeTo(b, a.AddrPort(), a)
}

// WriteToUDPAddrPort sends b as one datagram.
func (c *udpConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.writeTo(b, to, net.UDPAddrFromAddrPort(to))
}

func (c *udpConn) writeTo(b []byte, to netip.AddrPort, named net.Addr) (int, error) {
	if c.remote != nil {
		return 0, c.opError("write", named, net.ErrWriteToConnected)
	}
	if !to.IsValid() || to.Port() == 0 || to.Addr().Zone() != "" {
		return 0, c.opError("write", named, syscall.EINVAL)
	}
	return c.write(b, &tcpip.FullAddress{Addr: addressOf(to.Addr().Unmap()), Port: to.Port()}, named)
}

func (c *udpConn) write(b []byte, to *tcpip.FullAddress, named net.Addr) (int, error) {
	c.writes.turn.Lock()
	defer c.writes.turn.Unlock()
	if err := c.writes.ready(c.closed, net.ErrClosed); err != nil {
		return 0, c.opError("write", named, err)
	}
	defer c.payload.Reset(nil)
	for {
		c.payload.Reset(b)
		n, err := c.ep.Write(&c.payload, tcpip.WriteOptions{To: to})
		if err == nil {
			return int(n), nil
		}
		if _, again := err.(*tcpip.ErrWouldBlock); !again {
			return 0, c.opError("write", named, c.failure("write", err))
		}
		if err := c.writes.wait(c.closed, net.ErrClosed); err != nil {
			return 0, c.opError("write", named, err)
		}
	}
}

// Close ends the socket.
func (c *udpConn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		close(c.closed)
		c.ep.Close()
		c.wq.EventUnregister(&c.reads.entry)
		c.wq.EventUnregister(&c.writes.entry)
		err = nil
	})
	if err != nil {
		return c.opError("close", nil, err)
	}
	return nil
}

func (c *udpConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns nil for a socket that is not connected.
func (c *udpConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return nil
	}
	return c.remote
}

func (c *udpConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *udpConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.reads, t) }
func (c *udpConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writes, t) }

func (c *udpConn) setDeadline(w *waitPoint, t time.Time) error {
	select {
	case <-c.closed:
		return c.opError("set", nil, net.ErrClosed)
	default:
	}
	w.deadline.set(t)
	return nil
}
