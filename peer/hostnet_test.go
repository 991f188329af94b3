package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

// These loopback addresses play overlay addresses; elsewhere is one of the host's that is none.
const (
	ownA      = "127.0.0.2"
	ownB      = "127.0.0.3"
	own6      = "::1"
	elsewhere = "127.0.0.1"
)

// patience is for what ought to come at once.
const patience = 20 * time.Second

// hostNet returns the host's network with these own addresses, and sees to it that the test leaves no goroutine.
func hostNet(t *testing.T, own ...string) *hostNetwork {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("TUN mode, and so many loopback addresses, are Linux's only")
	}
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	var prefixes []netip.Prefix
	for _, a := range own {
		ip := netip.MustParseAddr(a)
		l, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
		switch {
		case err == nil:
			l.Close()
		case os.Getenv("CI") != "":
			t.Fatalf("no loopback address %s: %v", a, err)
		default:
			t.Skipf("this host does not have the loopback address %s", a)
		}
		prefixes = append(prefixes, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return newHostNetwork(prefixes)
}

func (h *hostNetwork) listenTCP(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := h.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (h *hostNetwork) listenUDP(t *testing.T, network, address string) net.PacketConn {
	t.Helper()
	c, err := h.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func (h *hostNetwork) dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := h.DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// portOf returns the port of an address as text.
func portOf(t *testing.T, a net.Addr) string {
	t.Helper()
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// wantDatagram reads one datagram and returns where it came from.
func wantDatagram(t *testing.T, c net.PacketConn, want string) net.Addr {
	t.Helper()
	b := make([]byte, maxDatagram)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != want {
		t.Fatalf("read %d bytes %.40q, want %d bytes %.40q", n, b[:n], len(want), want)
	}
	return from
}

// listenCases say on which addresses a call listens, and as what; %s is tcp or udp.
var listenCases = []struct {
	network, host string
	addr          string // without the port
	serves        []string
}{
	{"%s", "", "::", []string{ownA, ownB, own6}},
	{"%s", "::", "::", []string{ownA, ownB, own6}},
	{"%s", "0.0.0.0", "0.0.0.0", []string{ownA, ownB}},
	{"%s4", "", "0.0.0.0", []string{ownA, ownB}},
	{"%s4", "0.0.0.0", "0.0.0.0", []string{ownA, ownB}},
	{"%s6", "", own6, []string{own6}},
	{"%s6", "::", own6, []string{own6}},
	{"%s", ownB, ownB, []string{ownB}},
	{"%s4", ownB, ownB, []string{ownB}},
	{"%s", "::ffff:" + ownB, ownB, []string{ownB}},
	{"%s", own6, own6, []string{own6}},
}

func TestHostListensOnOwnAddressesOnly(t *testing.T) {
	for _, c := range listenCases {
		t.Run(c.network+" "+c.host, func(t *testing.T) {
			h := hostNet(t, ownA, ownB, own6)
			l := h.listenTCP(t, fmt.Sprintf(c.network, "tcp"), net.JoinHostPort(c.host, "0"))
			port := portOf(t, l.Addr())
			if got, want := l.Addr().String(), net.JoinHostPort(c.addr, port); got != want || port == "0" {
				t.Errorf("Addr() = %s, want %s", got, want)
			}
			if _, plain := l.(*net.TCPListener); plain != (len(c.serves) == 1) {
				t.Errorf("%T for %d addresses", l, len(c.serves))
			}
			for _, to := range []string{ownA, ownB, own6, elsewhere} {
				address := net.JoinHostPort(to, port)
				near, err := h.DialContext(t.Context(), "tcp", address)
				if !slices.Contains(c.serves, to) {
					if !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("dial %s: %v, want it refused", to, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				far, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()
				if far.LocalAddr().String() != address || far.RemoteAddr().String() != near.LocalAddr().String() {
					t.Errorf("accepted %v to %v, dialled %v to %s", far.RemoteAddr(), far.LocalAddr(), near.LocalAddr(), address)
				}
			}
		})
	}
}

func TestHostDatagramsAtOwnAddressesOnly(t *testing.T) {
	for _, c := range listenCases {
		t.Run(c.network+" "+c.host, func(t *testing.T) {
			h := hostNet(t, ownA, ownB, own6)
			server := h.listenUDP(t, fmt.Sprintf(c.network, "udp"), net.JoinHostPort(c.host, "0"))
			port := portOf(t, server.LocalAddr())
			if got, want := server.LocalAddr().String(), net.JoinHostPort(c.addr, port); got != want || port == "0" {
				t.Errorf("LocalAddr() = %s, want %s", got, want)
			}
			if _, plain := server.(*net.UDPConn); plain != (len(c.serves) == 1) {
				t.Errorf("%T for %d addresses", server, len(c.serves))
			}
			for _, to := range []string{ownA, ownB, own6, elsewhere} {
				if !slices.Contains(c.serves, to) {
					near := h.dial(t, "udp", net.JoinHostPort(to, port))
					near.Write([]byte("nobody"))
					if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s: %v, want it refused", to, err)
					}
					continue
				}
				// Unconnected, since the answer comes from the first address of the family.
				near, err := net.ListenPacket("udp", net.JoinHostPort(to, "0"))
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				near.SetDeadline(time.Now().Add(patience))
				address, err := net.ResolveUDPAddr("udp", net.JoinHostPort(to, port))
				if err != nil {
					t.Fatal(err)
				}
				for _, message := range []string{"question", "", strings.Repeat("long", 16000)} {
					if _, err := near.WriteTo([]byte(message), address); err != nil {
						t.Fatal(err)
					}
					from := wantDatagram(t, server, message)
					if from.String() != near.LocalAddr().String() {
						t.Errorf("from %v, sent by %v", from, near.LocalAddr())
					}
					if n, err := server.WriteTo([]byte(message), from); n != len(message) || err != nil {
						t.Fatal(n, err)
					}
					if back := wantDatagram(t, near, message); portOf(t, back) != port {
						t.Errorf("answer from %v, port is %s", back, port)
					}
				}
			}
		})
	}
}

func TestHostNetworkErrors(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	taken := h.listenTCP(t, "tcp", ownB+":0")
	takenUDP := h.listenUDP(t, "udp", ownB+":0")
	listen := func(network, address string) error { _, err := h.Listen(network, address); return err }
	packet := func(network, address string) error { _, err := h.ListenPacket(network, address); return err }
	dial := func(network, address string) error {
		_, err := h.DialContext(t.Context(), network, address)
		return err
	}
	cancelled := func(network, address string) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := h.DialContext(ctx, network, address)
		return err
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	unknown := func(err error) bool { return as[net.UnknownNetworkError](err) }
	wrong := func(err error) bool { return as[*net.AddrError](err) }
	for _, c := range []struct {
		op               string
		call             func(network, address string) error
		network, address string
		want             func(error) bool
	}{
		{"listen", listen, "udp", ":0", unknown},
		{"listen", listen, "unix", "/tmp/x", unknown},
		{"listen", packet, "tcp", ":0", unknown},
		{"listen", packet, "ip4:icmp", "", unknown},
		{"dial", dial, "ip4:icmp", ownA, unknown},
		{"dial", dial, "", ownA + ":1", unknown},
		{"listen", listen, "tcp", elsewhere + ":0", is(syscall.EADDRNOTAVAIL)},
		{"listen", listen, "tcp", "[::1]:0", is(syscall.EADDRNOTAVAIL)},
		{"listen", listen, "tcp6", ":0", is(syscall.EADDRNOTAVAIL)},
		{"listen", packet, "udp", elsewhere + ":0", is(syscall.EADDRNOTAVAIL)},
		{"listen", packet, "udp6", "[::]:0", is(syscall.EADDRNOTAVAIL)},
		{"dial", dial, "tcp6", ":1", is(syscall.EADDRNOTAVAIL)},
		{"listen", listen, "tcp", taken.Addr().String(), is(syscall.EADDRINUSE)},
		{"listen", listen, "tcp", ":" + portOf(t, taken.Addr()), is(syscall.EADDRINUSE)},
		{"listen", packet, "udp", ":" + portOf(t, takenUDP.LocalAddr()), is(syscall.EADDRINUSE)},
		{"listen", listen, "tcp", ownA, wrong},
		{"listen", listen, "tcp", "localhost:0", wrong},
		{"listen", listen, "tcp6", "[fe80::1%lo]:0", wrong},
		{"listen", listen, "tcp6", ownA + ":0", wrong},
		{"listen", listen, "tcp4", "[::]:0", wrong},
		{"dial", dial, "tcp", "localhost:1", wrong},
		{"dial", dial, "udp4", "[::1]:1", wrong},
		{"listen", listen, "tcp", ":65536", wrong},
		{"listen", listen, "tcp", ":no-such-service", as[*net.DNSError]},
		{"dial", cancelled, "tcp", ownA + ":1", is(context.Canceled)},
		{"dial", dial, "tcp", ownA + ":1", is(syscall.ECONNREFUSED)},
	} {
		err := c.call(c.network, c.address)
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != c.op || op.Net != c.network || !c.want(err) {
			t.Errorf("%s %q %q: %#v", c.op, c.network, c.address, err)
		}
	}
}

func as[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// As for package net, an empty or unspecified host is this peer.
func TestHostDialsItself(t *testing.T) {
	h := hostNet(t, ownB, own6, ownA)
	l := h.listenTCP(t, "tcp", ":0")
	c := h.listenUDP(t, "udp", ":0")
	for _, to := range []struct{ network, host, want string }{
		{"", "", ownB}, {"", "::", ownB}, {"", "0.0.0.0", ownB},
		{"4", "", ownB}, {"6", "", own6}, {"6", "::", own6}, {"", ownA, ownA},
	} {
		for transport, port := range map[string]string{"tcp": portOf(t, l.Addr()), "udp": portOf(t, c.LocalAddr())} {
			near := h.dial(t, transport+to.network, net.JoinHostPort(to.host, port))
			if got, want := near.RemoteAddr().String(), net.JoinHostPort(to.want, port); got != want {
				t.Errorf("%s%s %q: connected to %s, want %s", transport, to.network, to.host, got, want)
			}
		}
	}
	for _, c := range []net.PacketConn{c, hostNet(t, ownA, ownB).listenUDP(t, "udp", ":0")} {
		for _, host := range []string{"::", "0.0.0.0", "::ffff:0.0.0.0"} {
			port := c.LocalAddr().(*net.UDPAddr).Port
			if _, err := c.WriteTo([]byte(host), &net.UDPAddr{IP: net.ParseIP(host), Port: port}); err != nil {
				t.Fatal(err)
			}
			wantDatagram(t, c, host)
		}
	}
}

func TestHostKeepsToOnePath(t *testing.T) {
	t.Setenv("GODEBUG", "multipathtcp=1")
	h := newHostNetwork(nil)
	if h.dialer.MultipathTCP() || h.listen.MultipathTCP() {
		t.Error("Multipath TCP may take connections out of the overlay")
	}
}

func TestHostConnections(t *testing.T) {
	for _, to := range []string{ownA, own6} {
		t.Run(to, func(t *testing.T) {
			h := hostNet(t, ownA, own6)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				l, err := h.Listen("tcp", ":0")
				if err != nil {
					return nil, nil, nil, err
				}
				defer l.Close()
				c1, err = h.DialContext(t.Context(), "tcp", net.JoinHostPort(to, portOf(t, l.Addr())))
				if err != nil {
					return nil, nil, nil, err
				}
				if c2, err = l.Accept(); err != nil {
					c1.Close()
					return nil, nil, nil, err
				}
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

// A testSocket is one of a group without the system.
type testSocket chan struct{}

func (s testSocket) Close() error { close(s); return nil }

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group[testSocket, int]{sockets: []testSocket{make(testSocket), make(testSocket)}}
		var ended atomic.Int64
		g.start(func(s testSocket) {
			<-s
			time.Sleep(time.Second) // Close has to wait for this
			ended.Add(1)
			if g.offer(0) {
				t.Error("offer succeeded after Close")
			}
		})
		want := func(call func() (int, error), wantN int, wantErr error) {
			t.Helper()
			if n, err := call(); n != wantN || err != wantErr {
				t.Errorf("took %d, %v; want %d, %v", n, err, wantN, wantErr)
			}
		}
		// waiting begins to take, and returns what takes the result.
		waiting := func() func() (int, error) {
			var n int
			var err error
			done := make(chan struct{})
			go func() { n, err = g.take(); close(done) }()
			synctest.Wait()
			return func() (int, error) { <-done; return n, err }
		}

		result := waiting()
		if !g.offer(7) {
			t.Error("offer failed")
		}
		want(result, 7, nil)

		result = waiting()
		g.setDeadline(time.Now().Add(time.Hour))
		begin := time.Now()
		want(result, 0, os.ErrDeadlineExceeded)
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("the deadline took %v", took)
		}
		offered := make(chan bool)
		go func() { offered <- g.offer(8) }()
		synctest.Wait()
		for range 100 { // so that chance would not help
			want(g.take, 0, os.ErrDeadlineExceeded)
		}
		g.setDeadline(time.Now().Add(time.Hour))
		want(g.take, 8, nil)
		if !<-offered {
			t.Error("offer failed")
		}

		result = waiting()
		go func() { offered <- g.offer(9) }()
		want(result, 9, nil)
		<-offered
		result = waiting()
		if err := g.close(); err != nil || ended.Load() != 2 {
			t.Errorf("close: %v, with %d of 2 goroutines ended", err, ended.Load())
		}
		want(result, 0, net.ErrClosed)
		g.deadline.set(time.Unix(1, 0))
		for range 100 {
			want(g.take, 0, net.ErrClosed)
		}
		if err := g.close(); err != net.ErrClosed {
			t.Errorf("second close: %v", err)
		}
	})
}

// A waiting Accept or ReadFrom is woken by Close and by a deadline that is moved.
func TestGroupIsWoken(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	type socket struct {
		wait, close func() error
		deadline    func(time.Time) error
	}
	open := map[string]func(t *testing.T) socket{
		"Accept": func(t *testing.T) socket {
			l := h.listenTCP(t, "tcp", ":0").(*listenerGroup)
			return socket{func() error { _, err := l.Accept(); return err }, l.Close, l.SetDeadline}
		},
		"ReadFrom": func(t *testing.T) socket {
			c := h.listenUDP(t, "udp", ":0")
			return socket{func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }, c.Close, c.SetDeadline}
		},
		"ReadFrom, by the read deadline": func(t *testing.T) socket {
			c := h.listenUDP(t, "udp", ":0")
			return socket{func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }, c.Close, c.SetReadDeadline}
		},
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			woken := make(chan error)
			wait := func() { woken <- s.wait() }
			want := func(want error) {
				t.Helper()
				err := <-woken
				if !as[*net.OpError](err) || !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() != (want == os.ErrDeadlineExceeded) {
					t.Errorf("Timeout() of %v", err)
				}
			}
			go wait()
			s.deadline(time.Unix(1, 0))
			want(os.ErrDeadlineExceeded)
			go wait() // it has passed already
			want(os.ErrDeadlineExceeded)
			s.deadline(time.Time{})
			go wait()
			go wait()
			if err := s.close(); err != nil {
				t.Error(err)
			}
			want(net.ErrClosed)
			want(net.ErrClosed)
			go wait()
			want(net.ErrClosed)
			for what, err := range map[string]error{"Close": s.close(), "deadline": s.deadline(time.Time{})} {
				if !as[*net.OpError](err) || !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s after Close: %v", what, err)
				}
			}
		})
	}
}

func TestConnectionsNotAcceptedAreClosed(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*listenerGroup)
	var dialled []net.Conn
	for range 3 {
		for _, host := range []string{ownA, ownB} {
			dialled = append(dialled, h.dial(t, "tcp", net.JoinHostPort(host, portOf(t, l.Addr()))))
		}
	}
	l.Close()
	for _, c := range dialled {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read from a closed listener's connection: %v", err)
		}
	}
}

// The case the test above reaches by luck only: a connection has left the system's queue, and then
// nobody takes it.
func TestConnectionOnTheWayIsClosed(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*listenerGroup)
	l.closing.Do(func() { close(l.closed) }) // Close has come so far
	for i, host := range []string{ownA, ownB} {
		c := h.dial(t, "tcp", net.JoinHostPort(host, portOf(t, l.Addr())))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		l.sockets[i].Close()
	}
	l.running.Wait()
}

// An error of one listener is the caller's to judge, and no end.
func TestAcceptGoesOnAfterError(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*listenerGroup)
	l.sockets[1].SetDeadline(time.Unix(1, 0))
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want the listener's error", err)
		}
	}
	l.sockets[1].SetDeadline(time.Time{})
	near := h.dial(t, "tcp", net.JoinHostPort(ownB, portOf(t, l.Addr())))
	for {
		far, err := l.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // it was on its way
		}
		if err != nil {
			t.Fatal(err)
		}
		if far.RemoteAddr().String() != near.LocalAddr().String() {
			t.Errorf("accepted %v, want %v", far.RemoteAddr(), near.LocalAddr())
		}
		far.Close()
		return
	}
}

func TestGroupDatagramErrors(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	c := h.listenUDP(t, "udp", ":0").(*packetGroup)
	to := netip.MustParseAddrPort(ownA + ":9")
	wantWrite := func(n int, err error, want error) {
		t.Helper()
		if n != 0 || !as[*net.OpError](err) || !errors.Is(err, want) {
			t.Errorf("%d, %v, want %v", n, err, want)
		}
	}
	write := func(address string) (int, error) {
		return c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(address))
	}
	n, err := c.WriteTo([]byte("x"), &net.IPAddr{})
	wantWrite(n, err, syscall.EINVAL)
	n, err = c.WriteTo([]byte("x"), (*net.UDPAddr)(nil))
	wantWrite(n, err, syscall.EINVAL)
	n, err = c.WriteTo([]byte("x"), &net.UDPAddr{Port: 9})
	wantWrite(n, err, syscall.EINVAL)
	n, err = write(ownA + ":0")
	wantWrite(n, err, syscall.EINVAL)
	n, err = write("[fe80::1%lo]:9")
	wantWrite(n, err, syscall.EINVAL)
	n, err = write("[::1]:9")
	wantWrite(n, err, syscall.ENETUNREACH)
	n, err = c.WriteToUDPAddrPort(make([]byte, maxDatagram), to)
	wantWrite(n, err, syscall.EMSGSIZE)

	c.SetWriteDeadline(time.Unix(1, 0))
	for _, a := range []string{ownA, ownB} {
		n, err = write(a + ":9")
		wantWrite(n, err, os.ErrDeadlineExceeded)
	}
	c.SetDeadline(time.Time{})
	if _, err := write(ownA + ":9"); err != nil {
		t.Errorf("write after the deadline was taken away: %v", err)
	}

	c.Close()
	for _, a := range []string{ownA + ":9", "[::1]:9"} {
		n, err = write(a)
		wantWrite(n, err, net.ErrClosed)
	}
	if err := c.SetWriteDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetWriteDeadline after Close: %v", err)
	}
}

func TestGroupCutsDatagrams(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	c := h.listenUDP(t, "udp", ":0")
	near := h.dial(t, "udp", net.JoinHostPort(ownB, portOf(t, c.LocalAddr())))
	near.Write([]byte("much too long"))
	near.Write([]byte("next"))
	b := make([]byte, 4)
	for _, want := range []string{"much", "next"} {
		if n, _, err := c.ReadFrom(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v, want %q", b[:n], err, want)
		}
	}
}

// A lent buffer must not be written before it has been copied; the race detector sees it too.
func TestGroupKeepsDatagramsApart(t *testing.T) {
	h := hostNet(t, ownA, ownB, own6)
	c := h.listenUDP(t, "udp", ":0")
	const rounds, readers = 50, 3
	for i, host := range []string{ownA, ownB, own6} {
		near := h.dial(t, "udp", net.JoinHostPort(host, portOf(t, c.LocalAddr())))
		go func() {
			for range rounds {
				near.Write(bytes.Repeat([]byte{byte('a' + i)}, 1000))
			}
		}()
	}
	done := make(chan error)
	for range readers {
		go func() {
			b := make([]byte, 2000)
			for range rounds {
				n, _, err := c.ReadFrom(b)
				if err == nil && (n != 1000 || bytes.Count(b[:n], b[:1]) != n) {
					err = fmt.Errorf("read a mixture: %q", b[:n])
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSender(t *testing.T) {
	g := &packetGroup{}
	for _, a := range []string{"10.9.0.2/16", "fd00:9::2/64", "10.9.1.2/24", "10.8.0.2/24", "fd00:8::2/64"} {
		g.own = append(g.own, netip.MustParsePrefix(a))
	}
	v4 := &packetGroup{own: g.own[2:4]}
	for _, c := range []struct {
		group *packetGroup
		to    string
		want  int
	}{
		{g, "10.9.7.1", 0}, {g, "10.9.1.1", 2}, {g, "10.8.0.1", 3}, {g, "10.9.1.2", 2},
		{g, "192.0.2.1", 0}, {g, "fd00:9::1", 1}, {g, "fd00:8::1", 4}, {g, "2001:db8::1", 1},
		{g, "0.0.0.0", 0}, {g, "::", 1},
		{v4, "2001:db8::1", -1}, {v4, "::", 0}, {v4, "192.0.2.1", 0},
	} {
		if got := c.group.sender(netip.MustParseAddr(c.to)); got != c.want {
			t.Errorf("to %s: sender %d, want %d", c.to, got, c.want)
		}
	}
}

// A fakeSocket is what TestBindAll binds.
type fakeSocket struct{ open *int }

func (s fakeSocket) Close() error { *s.open--; return nil }

func TestBindAll(t *testing.T) {
	own := []netip.Prefix{
		netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd00:9::2/64"), netip.MustParsePrefix("10.8.0.2/24"),
	}
	taken := os.NewSyscallError("bind", syscall.EADDRINUSE)
	for _, c := range []struct {
		name     string
		port     uint16
		freeFrom uint16 // at the last address
		none     bool   // the first address has no port
		want     uint16 // 0: an error
		picks    int    // how often the first address was bound
	}{
		{name: "picked at once", freeFrom: 1000, want: 1000, picks: 1},
		{name: "picked again", freeFrom: 1003, want: 1003, picks: 4},
		{name: "picked at the last", freeFrom: 1000 + portPicks - 1, want: 1000 + portPicks - 1, picks: portPicks},
		{name: "given up", freeFrom: 1000 + portPicks, picks: portPicks},
		{name: "no port at all", none: true, picks: 1},
		{name: "given and free", port: 80, freeFrom: 80, want: 80, picks: 1},
		{name: "given and taken", port: 80, freeFrom: 81, picks: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			open, picks := 0, 0
			bind := func(at string) (fakeSocket, net.Addr, error) {
				a := netip.MustParseAddrPort(at)
				port := a.Port()
				if a.Addr() == own[0].Addr() {
					picks++
				}
				if port == 0 {
					if c.none {
						return fakeSocket{}, nil, taken
					}
					port = 1000 + uint16(picks-1)
				}
				if a.Addr() == own[2].Addr() && port < c.freeFrom {
					return fakeSocket{}, nil, taken
				}
				open++
				return fakeSocket{&open}, net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr(), port)), nil
			}
			sockets, port, err := bindAll(own, c.port, bind)
			if port != c.want || picks != c.picks || (err == nil) != (c.want != 0) || err != nil && err != taken {
				t.Errorf("port %d after %d picks, %v; want %d after %d", port, picks, err, c.want, c.picks)
			}
			if len(sockets) != open || err == nil && open != len(own) {
				t.Errorf("%d sockets open, %d returned", open, len(sockets))
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		waiting := make(map[int]<-chan struct{})
		want := func(waiter int, passed bool) {
			t.Helper()
			synctest.Wait()
			if isDone(waiting[waiter]) != passed || isDone(d.passed()) != passed {
				t.Errorf("waiter %d: passed is %t, and now %t; want %t", waiter, isDone(waiting[waiter]), isDone(d.passed()), passed)
			}
		}
		in := func(left time.Duration) { d.set(time.Now().Add(left)) }

		waiting[1] = d.passed()
		in(time.Hour)
		want(1, false)
		in(2 * time.Hour) // later
		time.Sleep(time.Hour)
		want(1, false)
		in(time.Minute) // earlier
		time.Sleep(time.Minute)
		want(1, true)

		in(time.Hour) // back into the future
		waiting[2] = d.passed()
		want(2, false)
		d.set(time.Time{}) // never
		time.Sleep(2 * time.Hour)
		want(2, false)
		in(0)
		want(2, true)

		// Set again just when it passes.
		for range 100 {
			in(time.Second)
			time.Sleep(time.Second)
			in(time.Second)
			waiting[3] = d.passed()
			want(3, false)
		}
		d.set(time.Time{})
	})
}
