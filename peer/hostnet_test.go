package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/adit-overlay/adit/internal/citest"
)

// These loopback addresses play overlay addresses; elsewhere is one of the host's that is none.
const (
	ownA      = "127.0.0.2"
	ownB      = "127.0.0.3"
	own6      = "::1"
	elsewhere = "127.0.0.1"
)

// patience is for what ought to come at once.
const patience = time.Minute

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
		if err != nil {
			citest.Skipf(t, "this host does not have the loopback address %s", a)
		}
		l.Close()
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
			bound := l.(*hostListener).tcpListener
			if _, plain := bound.(*net.TCPListener); plain != (len(c.serves) == 1) {
				t.Errorf("%T for %d addresses", bound, len(c.serves))
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
			if _, plain := server.(*hostUDPConn); plain != (len(c.serves) == 1) {
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
