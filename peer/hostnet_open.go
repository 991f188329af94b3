package peer

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// openSockets is what a hostNetwork has handed out and what is not closed yet, so that the end of the network is
// the end of that. Sockets leave it by their own Close.
type openSockets struct {
	mu      sync.Mutex // guards closed and sockets
	closed  bool
	sockets map[ender]struct{}

	underWay sync.WaitGroup // calls that may add; none begins once closed is set
	closing  sync.Once
}

func newOpenSockets() *openSockets { return &openSockets{sockets: make(map[ender]struct{})} }

// An ender is an open socket, or a dial that may become one.
type ender interface {
	// end closes it with the network, at once. After its own Close it may be net.ErrClosed.
	end() error
}

// begin tells of a call that may add a socket; close waits for its finish. It is false once closed.
func (o *openSockets) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.underWay.Add(1)
	return true
}

func (o *openSockets) finish() { o.underWay.Done() }

// beginDial is begin for a call that close is to interrupt, by the context returned.
func (o *openSockets) beginDial(ctx context.Context) (_ context.Context, finish func(), ok bool) {
	if !o.begin() {
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &dialling{cancel}
	o.add(d) // too late, it is cancelled already
	return ctx, func() {
		o.remove(d)
		cancel()
		o.finish()
	}, true
}

// add takes note of s. Once closed it ends s instead, and is false.
func (o *openSockets) add(s ender) bool {
	o.mu.Lock()
	closed := o.closed
	if !closed {
		o.sockets[s] = struct{}{}
	}
	o.mu.Unlock()
	if closed {
		s.end()
	}
	return !closed
}

// remove forgets s, which has been closed.
func (o *openSockets) remove(s ender) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.sockets, s)
}

func (o *openSockets) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// close ends all sockets and interrupts the calls that may add some. When it returns, those have returned.
func (o *openSockets) close() error {
	var errs []error
	o.closing.Do(func() {
		o.mu.Lock()
		o.closed = true
		sockets := o.sockets
		o.sockets = nil
		o.mu.Unlock()
		for s := range sockets { // nobody changes it any more
			if err := s.end(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
		o.underWay.Wait()
	})
	return errors.Join(errs...)
}

// dialling is a dial under way.
type dialling struct{ cancel context.CancelFunc }

func (d *dialling) end() error { d.cancel(); return nil }

// A hostConn is a connection that was dialled, a hostPacketConn a socket of many peers.
type (
	hostConn interface {
		net.Conn
		ender
	}
	hostPacketConn interface {
		net.PacketConn
		ender
	}
)

// newHostConn takes over what a net.Dialer returned for tcp or udp.
func newHostConn(dialled net.Conn, open *openSockets) hostConn {
	if c, ok := dialled.(*net.TCPConn); ok {
		return &hostTCPConn{c, open}
	}
	return &hostUDPConn{dialled.(*net.UDPConn), open}
}

// A hostTCPConn is a *net.TCPConn, and has all its methods and fast paths.
type hostTCPConn struct {
	*net.TCPConn
	open *openSockets
}

func (c *hostTCPConn) Close() error {
	defer c.open.remove(c)
	return c.TCPConn.Close()
}

// end resets the connection, as the stack does. A closing handshake would be left to the system, which could
// not finish it without the interface; and one with SO_LINGER would be waited for.
func (c *hostTCPConn) end() error {
	c.SetLinger(0)
	return c.TCPConn.Close()
}

// A hostUDPConn is a *net.UDPConn, and has all its methods.
type hostUDPConn struct {
	*net.UDPConn
	open *openSockets
}

func (c *hostUDPConn) Close() error {
	defer c.open.remove(c)
	return c.UDPConn.Close()
}

func (c *hostUDPConn) end() error { return c.UDPConn.Close() }

// A hostPacketGroup is a *packetGroup.
type hostPacketGroup struct {
	*packetGroup
	open *openSockets
}

func (c *hostPacketGroup) Close() error {
	defer c.open.remove(c)
	return c.packetGroup.Close()
}

func (c *hostPacketGroup) end() error { return c.packetGroup.Close() }

// A tcpListener is a *net.TCPListener or a *listenerGroup. It accepts *net.TCPConn.
type tcpListener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// A hostListener is a listener whose connections are hostTCPConns. It does not embed *net.TCPListener, for that has
// other ways to get at a connection than Accept.
type hostListener struct {
	tcpListener
	open *openSockets
}

func (l *hostListener) Accept() (net.Conn, error) {
	if !l.open.begin() {
		return nil, l.errClosed()
	}
	defer l.open.finish()
	accepted, err := l.tcpListener.Accept()
	if err != nil {
		return nil, err
	}
	c := &hostTCPConn{accepted.(*net.TCPConn), l.open}
	if !l.open.add(c) {
		return nil, l.errClosed()
	}
	return c, nil
}

func (l *hostListener) errClosed() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

func (l *hostListener) Close() error {
	defer l.open.remove(l)
	return l.tcpListener.Close()
}

func (l *hostListener) end() error { return l.tcpListener.Close() }
