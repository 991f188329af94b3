package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/adit-overlay/adit/packet"
)

func TestCloseEndsEverything(t *testing.T) {
	hostL := hostListen(t)
	p := newForwardingPair(t, loopbackHost(t, hostL.Addr().String()), nil)
	p.b.settleTime = time.Hour
	l := listen(t, p.b, "tcp", ":80")
	near, far := join(t, p, addrB)
	forwarded := dial(t, p.a, "tcp", hostAddr+":80")
	behind, err := hostL.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()

	var ends sync.WaitGroup
	want := func(what string, ok func(error) bool, call func() error) {
		ends.Go(func() {
			if err := call(); !ok(err) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	closed := func(err error) bool { return errors.Is(err, net.ErrClosed) }
	failed := func(err error) bool { return err != nil && err != io.EOF && !errors.Is(err, net.ErrClosed) }
	read := func(c net.Conn) func() error {
		return func() error { _, err := c.Read(make([]byte, 1)); return err }
	}
	want("accept at the closed stack", closed, func() error { _, err := l.Accept(); return err })
	want("read at the closed stack", closed, read(far))
	want("read at its peer", failed, read(near))
	want("read of a forwarded connection at its peer", failed, read(forwarded))
	want("read on the host", func(err error) bool { return err != nil }, read(behind))
	p.b.Close()
	ends.Wait()

	for what, call := range map[string]func() error{
		"Dial":         func() error { _, err := p.b.Dial("tcp", addrA+":1"); return err },
		"Listen":       func() error { _, err := p.b.Listen("tcp", ":1"); return err },
		"ListenPacket": func() error { _, err := p.b.ListenPacket("udp", ":1"); return err },
		"Close":        func() error { return errors.Join(p.b.Close(), net.ErrClosed) },
	} {
		if err := call(); !closed(err) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// Every connection is reset, however many there are, and whether or not it was accepted: what Read returns
// until net.ErrClosed has a reset for each.
func TestCloseResetsEveryConnection(t *testing.T) {
	const n = 2 * queueSlots
	type way struct{ from, to netip.AddrPort }
	reset := make(map[way]bool) // only the pump from b touches it
	hostL := hostListen(t)
	p := newForwardingPairWith(t, loopbackHost(t, hostL.Addr().String()), pairOption{
		clock: faketime.NewManualClock(), // nothing is lost, and nothing is sent again
		alter: func(toB bool, b []byte, _ *packet.Offload) bool {
			h, err := packet.Parse(b)
			if err != nil {
				t.Error(err)
				return false
			}
			if tcp := header.TCP(b[h.Transport:]); !toB && tcp.Flags()&header.TCPFlagRst != 0 {
				reset[way{
					netip.AddrPortFrom(h.Src, tcp.SourcePort()), netip.AddrPortFrom(h.Dst, tcp.DestinationPort()),
				}] = true
			}
			return true
		},
	})
	p.b.settleTime = time.Hour
	var near []net.Conn
	open := func(from *Stack, to string, l net.Listener) {
		t.Helper()
		c := dial(t, from, "tcp", to)
		if l == nil {
			near = append(near, c)
			return
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		if from == p.b {
			c = far
		}
		near = append(near, c)
	}
	listen(t, p.b, "tcp", ":80")
	accepting, back := listen(t, p.b, "tcp", ":81"), listen(t, p.a, "tcp", ":82")
	for i := range n {
		switch i % 8 {
		case 0:
			open(p.a, addrB+":81", accepting)
		case 1:
			open(p.b, net.JoinHostPort(addrA6, "82"), back)
		case 2:
			open(p.a, hostAddr+":80", hostL)
		default:
			open(p.a, addrB+":80", nil) // not accepted
		}
	}
	p.stop()
	for i, c := range near {
		w := way{c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()}
		if !reset[w] {
			t.Errorf("connection %d of %d, from %v to %v: no reset", i, n, w.from, w.to)
		}
	}
}

// The far end takes the connection for made, but b does not yet know: Close lets it learn of it, and of its end.
func TestCloseResetsConnectionsBeingMade(t *testing.T) {
	hostL := hostListen(t)
	for _, to := range []string{addrB, addrB6, hostAddr} {
		t.Run(to, func(t *testing.T) {
			var p *pair
			p = newForwardingPairWith(t, loopbackHost(t, hostL.Addr().String()), pairOption{
				clock: faketime.NewManualClock(),
				alter: func(toB bool, b []byte, _ *packet.Offload) bool {
					h, err := packet.Parse(b)
					if err != nil {
						t.Error(err)
					} else if toB && header.TCP(b[h.Transport:]).Flags() == header.TCPFlagAck {
						<-p.b.closing.Done()
					}
					return true
				},
			})
			p.b.settleTime = time.Hour
			listen(t, p.b, "tcp", ":80")
			near := dial(t, p.a, "tcp", net.JoinHostPort(to, "80"))
			p.b.Close()
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want ECONNRESET", err)
			}
		})
	}
}

// Dials that lead nowhere, some cancelled and the rest ended by Close; goleak sees to the rest.
func TestCloseWhileConnecting(t *testing.T) {
	before := runtime.NumGoroutine()
	s := newStack(t, nil)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		var batch packet.Batch
		for s.Read(&batch) == nil {
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	for i := range 1000 {
		dials.Go(func() {
			ctx := ctx
			if i%2 == 0 {
				ctx = context.Background()
			}
			if c, err := s.DialContext(ctx, "tcp", addrB+":80"); err == nil {
				c.Close()
				t.Error("connected to nobody")
			}
		})
	}
	cancel()
	s.Close()
	dials.Wait()
	<-reading
	if n := len(s.ip.g.RegisteredEndpoints()); n != 0 {
		t.Errorf("%d endpoints left", n)
	}
	for runtime.NumGoroutine() > before {
		runtime.Gosched() // they have told that they end, and are about to
	}
}

func TestCancelledDialLeavesNothing(t *testing.T) {
	s := newStack(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	dialled := make(chan error)
	go func() {
		_, err := s.DialContext(ctx, "tcp", addrB+":80")
		dialled <- err
	}()
	wantPacket(t, s) // the SYN
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(s.ip.g.RegisteredEndpoints()); n != 0 {
		t.Errorf("%d endpoints left", n)
	}
}

// Nobody reads the device: dials fill the queue, and Close returns all the same.
func TestCloseWithoutReader(t *testing.T) {
	s := newStack(t, nil)
	var dials sync.WaitGroup
	for range queueSlots {
		dials.Go(func() {
			if _, err := s.Dial("tcp", addrB+":80"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
	for s.queue.put(pkt) { // until it is full and has been for as long as it waits
	}
	s.Close()
	dials.Wait()
}

// The resets of Close are lost, and so is what b acknowledged: what a then sends again is answered with a reset.
func TestCloseAnswersWhatIsSentAgain(t *testing.T) {
	var closing, again atomic.Bool
	var first uint32 // number of what a sends; only the pump to b touches it
	var away atomic.Bool
	back := make(chan struct{})
	p := newPair(t, pairOption{alter: func(toB bool, b []byte, _ *packet.Offload) bool {
		if !toB && away.Load() {
			<-back
			return false
		}
		h, err := packet.Parse(b)
		if err != nil {
			t.Error(err)
			return false
		}
		switch tcp := header.TCP(b[h.Transport:]); {
		case !toB && closing.Load():
			return again.Load()
		case toB && len(tcp.Payload()) > 0:
			again.Store(tcp.SequenceNumber() == first)
			first = tcp.SequenceNumber()
		}
		return true
	}})
	p.b.partTime = 24 * time.Hour
	near, far := join(t, p, addrB)
	closing.Store(true)
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var closed sync.WaitGroup
	closed.Go(func() { p.b.Close() })
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want ECONNRESET", err)
	}
	away.Store(true) // or Close would wait for a day
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
	for p.b.queue.put(pkt) {
	}
	closed.Wait()
	close(back)
}

// That is no sooner than the shortest time after which TCP sends again.
func TestCloseListensUntilItIsSentAgain(t *testing.T) {
	p := newPair(t, pairOption{})
	if again, any := p.b.ip.reset(); again != 0 || any {
		t.Errorf("without a connection: %v, %t", again, any)
	}
	join(t, p, addrB)
	if again, any := p.b.ip.reset(); again < 100*time.Millisecond || !any {
		t.Errorf("with one: %v, %t", again, any)
	}
}

// Connections are reset, and nobody reads the device any more: whatever came for them, no answer would leave, so Close does
// not wait for it.
func TestCloseDoesNotAnswerWhereNobodyReads(t *testing.T) {
	var away atomic.Bool // who reads the device of b
	back := make(chan struct{})
	p := newPair(t, pairOption{alter: func(toB bool, _ []byte, _ *packet.Offload) bool {
		if !toB && away.Load() {
			<-back
		}
		return true
	}})
	p.b.partTime = 24 * time.Hour
	join(t, p, addrB)
	away.Store(true)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
	for p.b.queue.put(pkt) {
	}
	p.b.Close()
	close(back)
}

func TestAwait(t *testing.T) {
	const most = time.Second
	for _, test := range []struct {
		name        string
		over        time.Duration
		least, most time.Duration
	}{
		{"what is over at once", 0, 0, 0},
		{"what will be over", most / 2, most / 2, most/2 + 2*time.Millisecond},
		{"what never is", time.Hour, most, most},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				await(most, func() bool { return time.Since(began) >= test.over })
				if took := time.Since(began); took < test.least || took > test.most {
					t.Errorf("took %v, want %v to %v", took, test.least, test.most)
				}
			})
		})
	}
}

func TestLull(t *testing.T) {
	const quiet = 100 * time.Millisecond
	for _, test := range []struct {
		name   string
		counts time.Duration // the count grows until then
		over   time.Duration
		want   time.Duration
	}{
		{"nothing ever", 0, time.Hour, quiet},
		{"something at first", quiet / 2, time.Hour, quiet + quiet/2},
		{"something for long", 10 * quiet, time.Hour, 11 * quiet},
		{"it is over", 0, quiet / 2, quiet / 2},
		{"it is over while something comes", time.Hour, 2 * quiet, 2 * quiet},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				done := lull(quiet, func() uint64 { return uint64(min(time.Since(began), test.counts)) }, func() bool { return time.Since(began) >= test.over })
				for !done() {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("took %v, want %v", took, test.want)
				}
			})
		})
	}
}
