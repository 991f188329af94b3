package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Keepalive like package net's, so that a far end that is gone frees an idle connection after
// two and a half minutes.
const (
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 15 * time.Second
	keepaliveCount    = 9
)

// tcpConn is a TCP connection. Besides net.Conn it has CloseRead, CloseWrite, SetLinger, SetNoDelay and
// SetKeepAlive of *net.TCPConn.
type tcpConn struct {
	s             *Stack
	ep            tcpip.Endpoint
	wq            *waiter.Queue
	local, remote *net.TCPAddr
	far           bool // as Stack.tuning counts it

	reads   waitPoint
	into    tcpip.SliceWriter // what Read fills; held by who has the turn, as the next two are
	drained int               // read since the stack was told so
	writes  waitPoint
	from    bytes.Reader // what Write sends
	closing sync.Once
	closed  chan struct{}
}

// moderateAfter is how much is read before the stack is told, which then may widen the receive window. Telling
// it takes its locks, and less than this need not be told apart.
const moderateAfter = 32 << 10

var _ net.Conn = (*tcpConn)(nil)

// newTCPConn takes over a connected endpoint.
func newTCPConn(s *Stack, wq *waiter.Queue, ep tcpip.Endpoint) *tcpConn {
	c := &tcpConn{s: s, ep: ep, wq: wq, closed: make(chan struct{})}
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = net.TCPAddrFromAddrPort(addrPortOf(a, 0))
	}
	if a, err := ep.GetRemoteAddress(); err == nil {
		c.remote = net.TCPAddrFromAddrPort(addrPortOf(a, 0))
	}
	c.reads.watch(wq, waiter.ReadableEvents|waiter.EventRdHUp|waiter.EventHUp|waiter.EventErr)
	c.writes.watch(wq, waiter.WritableEvents|waiter.EventHUp|waiter.EventErr)
	setKeepalive(ep)
	c.far = s.tuning.adapt(s, ep)
	return c
}

func setKeepalive(ep tcpip.Endpoint) {
	idle := tcpip.KeepaliveIdleOption(keepaliveIdle)
	interval := tcpip.KeepaliveIntervalOption(keepaliveInterval)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}

func (c *tcpConn) opError(op string, err error) error {
	if err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// failure returns the error of a failed operation. The stack says "aborted" when it is closed itself, and
// when a connection whose far end had already closed its side is reset.
func (c *tcpConn) failure(call string, err tcpip.Error) error {
	if c.s.closing.Err() != nil { // whatever closing did to the endpoint first
		return net.ErrClosed
	}
	switch err.(type) {
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	case *tcpip.ErrAborted:
		if call == "write" {
			return os.NewSyscallError(call, syscall.EPIPE)
		}
		return os.NewSyscallError(call, syscall.ECONNRESET)
	}
	return callError(call, err)
}

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	c.reads.turn.Lock()
	defer c.reads.turn.Unlock()
	if err := c.reads.ready(c.closed, net.ErrClosed); err != nil {
		return 0, c.opError("read", err)
	}
	if len(b) == 0 {
		return 0, nil
	}
	defer func() { c.into = nil }()
	for {
		c.into = b
		res, err := c.ep.Read(&c.into, tcpip.ReadOptions{})
		if err == nil {
			if c.drained += res.Count; c.drained >= moderateAfter {
				c.ep.ModerateRecvBuf(c.drained)
				c.drained = 0
			}
			return res.Count, nil
		}
		if _, again := err.(*tcpip.ErrWouldBlock); !again {
			return 0, c.opError("read", c.failure("read", err))
		}
		if err := c.reads.wait(c.closed, net.ErrClosed); err != nil {
			return 0, c.opError("read", err)
		}
	}
}

// Write implements net.Conn. Concurrent writes are not mixed.
func (c *tcpConn) Write(b []byte) (int, error) {
	c.writes.turn.Lock()
	defer c.writes.turn.Unlock()
	if err := c.writes.ready(c.closed, net.ErrClosed); err != nil {
		return 0, c.opError("write", err)
	}
	defer c.from.Reset(nil)
	for done := 0; done < len(b); {
		c.from.Reset(b[done:])
		n, err := c.ep.Write(&c.from, tcpip.WriteOptions{})
		done += int(n)
		if err == nil {
			continue
		}
		if _, again := err.(*tcpip.ErrWouldBlock); !again {
			return done, c.opError("write", c.failure("write", err))
		}
		if err := c.writes.wait(c.closed, net.ErrClosed); err != nil {
			return done, c.opError("write", err)
		}
	}
	return len(b), nil
}

// Close ends the connection. What was written is still sent, and unread data resets the
// connection, as with a kernel's socket.
func (c *tcpConn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		close(c.closed)
		c.ep.Close()
		c.s.tuning.leave(c.s, c.far)
		c.wq.EventUnregister(&c.reads.entry)
		c.wq.EventUnregister(&c.writes.entry)
		err = nil
	})
	if err != nil {
		return c.opError("close", err)
	}
	return nil
}

// reset ends the connection at once: the far end sees a reset, and unsent data is lost.
func (c *tcpConn) reset() {
	c.SetLinger(0)
	c.Close()
}

// CloseRead shuts down the reading side: Read returns io.EOF.
func (c *tcpConn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite shuts down the writing side: the far end reads io.EOF after what was written.
func (c *tcpConn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *tcpConn) shutdown(how tcpip.ShutdownFlags) error {
	select {
	case <-c.closed:
		return c.opError("close", net.ErrClosed)
	default:
	}
	if err := c.ep.Shutdown(how); err != nil {
		return c.opError("close", c.failure("shutdown", err))
	}
	return nil
}

// SetLinger is as SetLinger of *net.TCPConn: with 0 Close discards unsent data and resets. Close
// never blocks, whatever sec is.
func (c *tcpConn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{
		Enabled: sec >= 0,
		Timeout: time.Duration(max(sec, 0)) * time.Second,
	})
	return nil
}

// SetNoDelay turns Nagle's algorithm off, which it is to begin with, or on.
func (c *tcpConn) SetNoDelay(noDelay bool) error {
	c.ep.SocketOptions().SetDelayOption(!noDelay)
	return nil
}

// SetKeepAlive turns keepalive messages on, which they are to begin with, or off.
func (c *tcpConn) SetKeepAlive(on bool) error {
	c.ep.SocketOptions().SetKeepAlive(on)
	return nil
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

func (c *tcpConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *tcpConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.reads, t) }
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writes, t) }

func (c *tcpConn) setDeadline(w *waitPoint, t time.Time) error {
	select {
	case <-c.closed:
		return c.opError("set", net.ErrClosed)
	default:
	}
	w.deadline.set(t)
	return nil
}
