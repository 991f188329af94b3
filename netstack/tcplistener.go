package netstack

import (
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections may wait to be accepted.
const backlog = 4096

// tcpListener is a listening TCP endpoint. Besides net.Listener it has SetDeadline of *net.TCPListener.
type tcpListener struct {
	s    *Stack
	ep   tcpip.Endpoint
	wq   *waiter.Queue
	addr *net.TCPAddr

	accepts waitPoint
	closing sync.Once
	closed  chan struct{}
}

var _ net.Listener = (*tcpListener)(nil)

func (l *tcpListener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.addr, Err: err}
}

// Accept implements net.Listener.
func (l *tcpListener) Accept() (net.Conn, error) {
	l.accepts.turn.Lock()
	defer l.accepts.turn.Unlock()
	if err := l.accepts.ready(l.closed, net.ErrClosed); err != nil {
		return nil, l.opError("accept", err)
	}
	for {
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			return newTCPConn(l.s, wq, ep), nil
		}
		if _, again := err.(*tcpip.ErrWouldBlock); !again {
			if l.s.closing.Err() != nil {
				return nil, l.opError("accept", net.ErrClosed)
			}
			return nil, l.opError("accept", callError("accept", err))
		}
		if err := l.accepts.wait(l.closed, net.ErrClosed); err != nil {
			return nil, l.opError("accept", err)
		}
	}
}

// Close ends the listener; connections not yet accepted are reset.
func (l *tcpListener) Close() error {
	err := net.ErrClosed
	l.closing.Do(func() {
		close(l.closed)
		l.ep.Close()
		l.wq.EventUnregister(&l.accepts.entry)
		err = nil
	})
	if err != nil {
		return l.opError("close", err)
	}
	return nil
}

// Addr implements net.Listener.
func (l *tcpListener) Addr() net.Addr { return l.addr }

// SetDeadline sets the deadline of Accept.
func (l *tcpListener) SetDeadline(t time.Time) error {
	select {
	case <-l.closed:
		return l.opError("set", net.ErrClosed)
	default:
	}
	l.accepts.deadline.set(t)
	return nil
}
