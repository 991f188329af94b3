package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/wire"
)

// wantOpen says how much the network has noted as open.
func (h *hostNetwork) wantOpen(t *testing.T, want int) {
	t.Helper()
	h.open.mu.Lock()
	defer h.open.mu.Unlock()
	if got := len(h.open.sockets); got != want {
		t.Errorf("%d noted as open, want %d", got, want)
	}
}

func wantClosed(t *testing.T, what string, err error) {
	t.Helper()
	if !as[*net.OpError](err) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s: %v, want %v", what, err, net.ErrClosed)
	}
}

// connect returns both ends of a connection from h to l.
func (h *hostNetwork) connect(t *testing.T, l net.Listener) (near, far net.Conn) {
	t.Helper()
	near = h.dial(t, "tcp", net.JoinHostPort(ownA, portOf(t, l.Addr())))
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// At one address sockets are the system's, at several they are groups.
var addressCases = map[string][]string{"one address": {ownA}, "two addresses": {ownA, ownB}}

func TestHostCloseEndsAll(t *testing.T) {
	for name, own := range addressCases {
		t.Run(name, func(t *testing.T) {
			h := hostNet(t, own...)
			l := h.listenTCP(t, "tcp", ":0")
			c := h.listenUDP(t, "udp", ":0")
			// The other ends are not in h: they would be reset, and some before they are closed themselves.
			other := hostNet(t, ownA)
			near, _ := h.connect(t, other.listenTCP(t, "tcp", ":0"))
			_, far := other.connect(t, l)
			question := h.dial(t, "udp", net.JoinHostPort(ownA, portOf(t, c.LocalAddr())))
			h.wantOpen(t, 5)
			type socket struct {
				what        string
				wait, close func() error
			}
			reading := func(what string, c net.Conn) socket {
				return socket{what, func() error { _, err := c.Read(make([]byte, 1)); return err }, c.Close}
			}
			sockets := []socket{
				reading("dialled", near), reading("accepted", far), reading("dialled UDP", question),
				{"listener", func() error { _, err := l.Accept(); return err }, l.Close},
				{"packet conn", func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }, c.Close},
			}
			var waiting sync.WaitGroup
			for _, s := range sockets {
				for range 2 {
					waiting.Go(func() { wantClosed(t, s.what, s.wait()) })
				}
			}
			for range 2 {
				waiting.Go(func() {
					if err := h.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			}
			waiting.Wait()
			h.wantOpen(t, 0)
			for _, s := range sockets {
				wantClosed(t, s.what+" again", s.wait())
				wantClosed(t, "Close of "+s.what, s.close())
			}
		})
	}
}

// A peer's Close reaches the host's sockets.
func TestCloseOfPeerClosesHostSockets(t *testing.T) {
	h := hostNet(t, ownA)
	key, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), Config{NoUDP: true, Peer: config.Peer{
		PrivateKey: key, Mode: config.ModeNetstack, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.device.network, p.device.host = h, h // as openTUN does
	c, err := p.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		_, _, err = c.ReadFrom(make([]byte, 1))
		wantClosed(t, "read", err)
	}
	_, err = p.Listen("tcp", ":0")
	wantClosed(t, "listen", err)
}

func TestHostClosedOpensNothing(t *testing.T) {
	for name, own := range addressCases {
		t.Run(name, func(t *testing.T) {
			h, other := hostNet(t, own...), hostNet(t, own...)
			l, c := other.listenTCP(t, "tcp", ":0"), other.listenUDP(t, "udp", ":0")
			h.Close()
			want := func(op, network string, err error) {
				t.Helper()
				wantClosed(t, op, err)
				var e *net.OpError
				if errors.As(err, &e) && (e.Op != op || e.Net != network) {
					t.Errorf("%s %s: %v", op, network, err)
				}
			}
			for _, address := range []string{":0", l.Addr().String()} { // free or taken
				_, err := h.Listen("tcp", address)
				want("listen", "tcp", err)
			}
			_, err := h.ListenPacket("udp", ":0")
			want("listen", "udp", err)
			for network, port := range map[string]string{"tcp": portOf(t, l.Addr()), "udp": portOf(t, c.LocalAddr())} {
				for _, port := range []string{port, "1"} {
					_, err = h.DialContext(t.Context(), network, net.JoinHostPort(ownA, port))
					want("dial", network, err)
				}
			}
			h.wantOpen(t, 0)
		})
	}
}

// What a program closes itself is not kept until the end of the network.
func TestHostForgetsWhatIsClosed(t *testing.T) {
	for name, own := range addressCases {
		t.Run(name, func(t *testing.T) {
			h := hostNet(t, own...)
			l := h.listenTCP(t, "tcp", ":0")
			c := h.listenUDP(t, "udp", ":0")
			near, far := h.connect(t, l)
			question := h.dial(t, "udp", net.JoinHostPort(ownA, portOf(t, c.LocalAddr())))
			for i, s := range []io.Closer{near, l, far, c, question} {
				h.wantOpen(t, 5-i)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				s.Close()
			}
			h.wantOpen(t, 0)

			for range 3 {
				if _, err := h.DialContext(t.Context(), "tcp", net.JoinHostPort(ownA, portOf(t, l.Addr()))); err == nil {
					t.Error("connected to a closed listener")
				}
				if _, err := l.Accept(); err == nil {
					t.Error("accepted from a closed listener")
				}
			}
			h.wantOpen(t, 0)
		})
	}
}

// Close interrupts a dial, and waits for it.
func TestHostCloseEndsDials(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			h := hostNet(t, ownA)
			var socket syscall.RawConn
			begun := make(chan struct{})
			h.dialer.ControlContext = func(ctx context.Context, _, _ string, c syscall.RawConn) error {
				socket = c
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			}
			failed := make(chan error, 1)
			go func() {
				_, err := h.DialContext(context.Background(), network, ownA+":1")
				failed <- err
			}()
			<-begun
			h.wantOpen(t, 1)
			h.Close()
			if err := socket.Control(func(uintptr) {}); err == nil {
				t.Error("the socket is open after Close")
			}
			wantClosed(t, "dial", <-failed)
			h.wantOpen(t, 0)
		})
	}
}

// A closeNotice is what a network has open only for the news of its Close.
type closeNotice chan struct{}

func (n closeNotice) end() error { close(n); return nil }

// A listen that succeeds while Close runs is closed, and Close waits for that.
func TestHostCloseEndsListens(t *testing.T) {
	for name, own := range addressCases {
		for network, listen := range map[string]func(h *hostNetwork) error{
			"tcp": func(h *hostNetwork) error { _, err := h.Listen("tcp", ":0"); return err },
			"udp": func(h *hostNetwork) error { _, err := h.ListenPacket("udp", ":0"); return err },
		} {
			t.Run(network+" at "+name, func(t *testing.T) {
				h := hostNet(t, own...)
				closing := make(closeNotice)
				h.open.add(closing)
				var sockets []syscall.RawConn
				begun := make(chan struct{})
				h.listen.Control = func(_, _ string, c syscall.RawConn) error {
					if sockets = append(sockets, c); len(sockets) == 1 {
						close(begun)
					}
					<-closing
					return nil
				}
				failed := make(chan error, 1)
				go func() { failed <- listen(h) }()
				<-begun
				h.Close()
				for _, s := range sockets {
					if err := s.Control(func(uintptr) {}); err == nil {
						t.Error("the socket is open after Close")
					}
				}
				if len(sockets) != len(own) {
					t.Errorf("%d sockets for %d addresses", len(sockets), len(own))
				}
				wantClosed(t, "listen", <-failed)
				h.wantOpen(t, 0)
			})
		}
	}
}

// A lateListener accepts a connection just when it is closed.
type lateListener struct {
	*net.TCPListener
	begun   chan struct{}
	closing closeNotice
	late    net.Conn
}

func (l *lateListener) Accept() (net.Conn, error) {
	close(l.begun)
	<-l.closing
	return l.late, nil
}

// A connection accepted while Close runs is closed, and Close waits for that.
func TestHostCloseEndsAccepts(t *testing.T) {
	h, other := hostNet(t, ownA), hostNet(t, ownA)
	near, _ := other.connect(t, other.listenTCP(t, "tcp", ":0"))
	l := h.listenTCP(t, "tcp", ":0").(*hostListener)
	late := &lateListener{l.tcpListener.(*net.TCPListener), make(chan struct{}), make(closeNotice), near.(*hostTCPConn).TCPConn}
	l.tcpListener = late
	h.open.add(late.closing)
	failed := make(chan error, 1)
	go func() { _, err := l.Accept(); failed <- err }()
	<-late.begun
	h.Close()
	if err := late.late.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline of a connection after Close: %v", err)
	}
	wantClosed(t, "accept", <-failed)
}

// The caller's own context still decides, as long as the network is open.
func TestHostDialEndsWithItsContext(t *testing.T) {
	h := hostNet(t, ownA)
	ctx, cancel := context.WithCancel(t.Context())
	h.dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := h.DialContext(ctx, "tcp", ownA+":1"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	h.wantOpen(t, 0)
}

// Whatever is made while Close runs is closed when it returns.
func TestHostCloseWhileInUse(t *testing.T) {
	for name, own := range addressCases {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				h := hostNet(t, own...)
				l := h.listenTCP(t, "tcp", ":0")
				port := portOf(t, l.Addr())
				var mu sync.Mutex
				var got []net.Conn
				var using sync.WaitGroup
				busy := make(chan struct{}, 1)
				// use calls open until the network is closed.
				use := func(open func() (net.Conn, error)) {
					using.Go(func() {
						for {
							c, err := open()
							if err != nil {
								wantClosed(t, "use", err)
								return
							}
							mu.Lock()
							got = append(got, c)
							mu.Unlock()
							select {
							case busy <- struct{}{}:
							default:
							}
						}
					})
				}
				use(l.Accept)
				use(func() (net.Conn, error) {
					l, err := h.Listen("tcp", ":0")
					if err == nil {
						l.Close()
					}
					return &net.TCPConn{}, err
				})
				for range 2 {
					use(func() (net.Conn, error) {
						return h.DialContext(context.Background(), "tcp", net.JoinHostPort(ownA, port))
					})
				}
				for range 4 {
					<-busy
				}
				h.Close()
				h.wantOpen(t, 0)
				using.Wait()
				for _, c := range got {
					if c, ok := c.(*hostTCPConn); ok {
						_, err := c.Read(make([]byte, 1))
						wantClosed(t, "connection", err)
					}
				}
			}
		})
	}
}

// The other side learns of it: there is nobody to shake hands with at leisure, so it is a reset.
func TestHostCloseResets(t *testing.T) {
	h, other := hostNet(t, ownA), hostNet(t, ownA)
	l := other.listenTCP(t, "tcp", ":0")
	near, err := h.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	far.SetDeadline(time.Now().Add(patience))
	near.(*hostTCPConn).SetLinger(3600)
	if _, err := near.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := far.Read(b); string(b[:n]) != "last words" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	h.Close()
	if _, err := far.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want %v", err, syscall.ECONNRESET)
	}
}

// io.Copy between two connections leaves the bytes in the kernel. A copy by way of the program would
// allocate its 32 KiB every time.
func TestHostConnectionsAreSpliced(t *testing.T) {
	h := hostNet(t, ownA)
	l := h.listenTCP(t, "tcp", ":0")
	const rounds, buffer = 20, 32 << 10
	type pair struct{ near, far net.Conn }
	copies := make([][2]pair, rounds)
	for i := range copies {
		for j := range 2 {
			near, far := h.connect(t, l)
			copies[i][j] = pair{near, far}
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := make([]byte, 5)
	for _, c := range copies {
		in, out := c[0], c[1]
		if _, err := in.near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := in.near.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(out.near, in.far); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := io.ReadFull(out.far, got); err != nil || !bytes.Equal(got, []byte("hello")) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > rounds*buffer/2 {
		t.Errorf("%d copies allocated %d bytes", rounds, took)
	}
	for _, c := range copies {
		for _, p := range c {
			p.near.Close()
			p.far.Close()
		}
	}
	l.Close()
	h.wantOpen(t, 0)
}

// Deadlines and methods of the system's types come through.
func TestHostSocketsKeepTheirMethods(t *testing.T) {
	h := hostNet(t, ownA)
	l, c := h.listenTCP(t, "tcp", ":0"), h.listenUDP(t, "udp", ":0")
	near, far := h.connect(t, l)
	question := h.dial(t, "udp", c.LocalAddr().String())
	for _, c := range []net.Conn{near, far} {
		if _, ok := c.(interface {
			io.ReaderFrom
			io.WriterTo
			syscall.Conn
			CloseRead() error
			CloseWrite() error
			SetLinger(int) error
			SetNoDelay(bool) error
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); !ok {
			t.Errorf("%T has not the methods of %T", c, &net.TCPConn{})
		}
	}
	for _, c := range []any{question, c} {
		if _, ok := c.(interface {
			net.Conn
			net.PacketConn
			syscall.Conn
			ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
			WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
			SetReadBuffer(int) error
		}); !ok {
			t.Errorf("%T has not the methods of %T", c, &net.UDPConn{})
		}
	}
	l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want %v", err, os.ErrDeadlineExceeded)
	}
}
