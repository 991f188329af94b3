package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/adit-overlay/adit/internal/heaptest"
	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/socks"
)

// A chain is all that two programs talk through that know nothing of the overlay: a proxy before a's stack, and
// the forwarder of b.
//
//	client ── kernel ── proxy ── a ══ the line ══ b ── kernel ── server
type chain struct {
	*pair
	clock  *faketime.ManualClock // of both stacks
	broken atomic.Bool           // the line loses everything
	lostA  atomic.Bool           // it has lost data to a
	lostB  atomic.Bool           // and to b
	proxy  net.Listener
	server net.Listener
}

func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{clock: faketime.NewManualClock(), server: hostListen(t), proxy: hostListen(t)}
	c.pair = newForwardingPairWith(t, loopbackHost(t, c.server.Addr().String()), pairOption{
		clock: c.clock,
		alter: func(toB bool, p []byte, _ *packet.Offload) bool {
			if !c.broken.Load() {
				return true
			}
			if tcp := header.TCP(header.IPv4(p).Payload()); len(tcp.Payload()) > 0 {
				map[bool]*atomic.Bool{false: &c.lostA, true: &c.lostB}[toB].Store(true)
			}
			return false
		},
	})
	s := &socks.Server{Dial: c.a.DialContext}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(c.proxy) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return c
}

// connect returns both ends, of the chain's only connection.
func (c *chain) connect(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	conn, err := net.Dial("tcp", c.proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Write([]byte("\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50")) // CONNECT 192.0.2.7:80
	reply := make([]byte, 12)
	if _, err := io.ReadFull(conn, reply); err != nil || reply[3] != 0 {
		t.Fatalf("% x, %v", reply, err)
	}
	far, err := c.server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	// The far host is connected first: the last packet of the near handshake may still be on the line.
	for c.b.Stats().Established == 0 || c.b.Stats().Forwarded == 0 {
		runtime.Gosched()
	}
	return conn.(*net.TCPConn), far.(*net.TCPConn)
}

func TestHalfCloseThenLargeReplyThroughProxyAndForwarder(t *testing.T) {
	c := newChain(t)
	client, server := c.connect(t)
	transfer(t, client, server, 100_000) // ends with CloseWrite
	transfer(t, server, client, 10<<20)
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want the end of the stream", err)
	}
}

// The line goes dead, and nobody says so. Both programs learn of it, and all between them is free, no later
// than keepalive and retransmission give up.
func TestDeadLineFreesAllBetweenProxyAndForwarder(t *testing.T) {
	for name, unsent := range map[string]string{"idle": "", "with data under way": "x"} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t)
			client, server := c.connect(t)
			c.broken.Store(true)
			if unsent != "" {
				client.Write([]byte(unsent))
				server.Write([]byte(unsent))
				// The kernel's time is not the clock's: what is to be under way must be before that goes on.
				for !c.lostA.Load() || !c.lostB.Load() {
					runtime.Gosched()
				}
			}
			ended := make(chan error, 2)
			for _, end := range []net.Conn{client, server} {
				go func() {
					_, err := end.Read(make([]byte, 1))
					ended <- err
				}()
			}
			const within = 8 * time.Minute
			for passed := time.Duration(0); passed < within; passed += time.Second {
				c.clock.Advance(time.Second)
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%v, want ECONNRESET: the stream was cut, not ended", err)
				}
			}
			c.b.forwards.running.Wait()
			for what, s := range map[string]*Stack{"dialling": c.a, "forwarding": c.b} {
				if n := s.Stats().Established; n != 0 {
					t.Errorf("%d connections left at the %s end", n, what)
				}
			}
		})
	}
}

// Connections are closed in every state there is: while the SYN is under way, when the dial has just returned, before and after they
// were accepted, in order and by reset. Nothing is left of them, of whatever kind.
func TestConnectionsClosedWhileConnectingLeaveNothing(t *testing.T) {
	const each = 1000
	clock := faketime.NewManualClock()
	hostL := hostListen(t)
	closeAll(hostL)
	p := newForwardingPairWith(t, loopbackHost(t, hostL.Addr().String()), pairOption{
		clock: clock,
		b:     func(c *Config) { c.Limits.DialsPerSource, c.Limits.DialsPerTarget = each, each },
	})
	l := listen(t, p.b, "tcp", ":80")
	closeAll(l)
	endpoints := func() int {
		n := 0
		for _, ip := range []*ipStack{p.a.ip, p.b.ip, p.b.forwards.ip} {
			n += len(ip.g.RegisteredEndpoints())
		}
		return n
	}
	listeners := endpoints()
	round := func(each int) {
		for at := 0; at < each; at += each / 4 { // no more at once than the queues between hold
			var dials sync.WaitGroup
			for i := range each / 4 {
				dials.Go(func() { p.openAndClose(t, at+i) })
			}
			over := make(chan struct{})
			go func() { dials.Wait(); close(over) }()
			// A SYN that meets what is left of the connection before it comes again.
			for waiting := true; waiting; {
				select {
				case <-over:
					waiting = false
				default:
					clock.Advance(time.Millisecond)
					runtime.Gosched()
				}
			}
		}
		// FIN, TIME_WAIT and what waits for either are over.
		for endpoints() > listeners {
			clock.Advance(time.Second)
			runtime.Gosched()
		}
		p.b.forwards.running.Wait()
	}
	round(each) // makes what is made once
	goroutines, heap := runtime.NumGoroutine(), heaptest.Reachable()
	round(each)
	for runtime.NumGoroutine() > goroutines {
		runtime.Gosched() // they have told that they end, and are about to
	}
	if grown := heaptest.Reachable() - heap; grown > 1<<20 {
		t.Errorf("%d connections left %d bytes", each, grown)
	}
}

// openAndClose does so in one of the ways there are.
func (p *pair) openAndClose(t *testing.T, way int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if way%5 == 0 {
		go cancel() // at any moment of the handshake
	}
	to := addrB + ":80"
	if way%3 == 0 {
		to = hostAddr + ":80"
	}
	conn, err := p.a.DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	switch way % 4 {
	case 0:
		resetConn(conn)
	case 1:
		conn.Write([]byte("x"))
	case 2:
		conn.(*tcpConn).CloseWrite()
	}
	conn.Close()
}
