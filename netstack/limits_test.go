package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/adit-overlay/adit/internal/doctest"
)

// A machine that never answers is dialled again and again. All else the same source dials is there at once: in its time
// nothing passes, so that a SYN that found no room would never come again.
func TestOneBlackHoleLeavesOthersAtSpeed(t *testing.T) {
	const hung = 1500 // more than a source may
	l := hostListen(t)
	closeAll(l)
	host := loopbackHost(t, l.Addr().String())
	open := host.Dial
	host.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "192.0.2.66:80" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return open(ctx, network, address)
	}
	asked := make(chan struct{})
	var filling atomic.Bool
	filling.Store(true)
	p := newForwardingPairWith(t, host, pairOption{
		clock: faketime.NewManualClock(),
		delivered: func(toB bool, _ []byte) {
			if toB && filling.Load() {
				asked <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var dials sync.WaitGroup
	for range hung {
		dials.Go(func() { p.a.DialContext(ctx, "tcp", "192.0.2.66:80") })
		<-asked // one after the other: what a busy machine keeps waiting in a's queue may be dropped
	}
	filling.Store(false)
	if got, want := p.b.Stats().DialsLimited, uint64(hung-Limits{}.withDefaults().DialsPerTarget); got != want {
		t.Errorf("%d of %d dials to one address were turned down, want %d", got, hung, want)
	}
	for range 200 {
		c := dial(t, p.a, "tcp", hostAddr+":80")
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	cancel()
	dials.Wait()
}

// Connections that are open are limited too, by who asks for them, and one that ends makes room.
func TestConnectionsIntoTheHostAreLimited(t *testing.T) {
	l := hostListen(t)
	syns := make(chan struct{}, 10)
	p := newForwardingPairWith(t, loopbackHost(t, l.Addr().String()), pairOption{
		clock: faketime.NewManualClock(), // no SYN is sent again
		b:     func(c *Config) { c.Limits.ConnsPerSource = 2 },
		delivered: func(toB bool, b []byte) {
			if toB && header.TCP(header.IPv4(b).Payload()).Flags() == header.TCPFlagSyn {
				syns <- struct{}{}
			}
		},
	})
	var open []net.Conn
	for range 2 {
		open = append(open, dial(t, p.a, "tcp", hostAddr+":80"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := p.a.DialContext(ctx, "tcp", hostAddr+":80")
		failed <- err
	}()
	for range 3 {
		<-syns
	}
	if got := p.b.Stats(); got.ConnsLimited != 1 || got.DialsLimited != 0 {
		t.Errorf("counted %+v", got)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, c := range open {
		resetConn(c)
	}
	p.b.forwards.running.Wait()
	if n := len(p.b.forwards.conns.perHolder) + len(p.b.forwards.targets.perHolder); n != 0 {
		t.Errorf("%d entries left of connections that are gone", n)
	}
	dial(t, p.a, "tcp", hostAddr+":80")
}

// Who advertises every address opens the way out, and not the host: neither what only the host itself
// reaches, nor its addresses in its own networks, which would pass by its firewall.
func TestDefaultRouteDoesNotOpenTheHost(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8:9::9"), netip.MustParseAddr("192.0.2.9")}
	l := hostListen(t)
	closeAll(l)
	var dialled atomic.Value
	host := refusingHost
	host.Addresses = func() ([]netip.Addr, error) { return own, nil }
	host.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		dialled.Store(address)
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	host.Echo = func(_ context.Context, a netip.Addr, _ []byte) error {
		t.Errorf("asked %v for an echo", a)
		return nil
	}
	asked := make(chan struct{}, 10) // b has had what is no TCP
	p := newForwardingPairWith(t, host, pairOption{
		b: func(c *Config) {
			c.Advertise = []netip.Prefix{
				netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("192.0.2.0/24"),
			}
		},
		delivered: func(toB bool, b []byte) {
			if d, ok := parseDatagram(b); toB && ok && d.protocol != uint8(header.TCPProtocolNumber) {
				asked <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var pings sync.WaitGroup
	for _, a := range own[:2] {
		_, err := p.a.Dial("tcp", netip.AddrPortFrom(a, 22).String())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: %v, want a refusal", a, err)
		}
		dial(t, p.a, "udp", netip.AddrPortFrom(a, 53).String()).Write([]byte("x"))
		pings.Go(func() {
			if _, err := p.a.Ping(ctx, a); err == nil {
				t.Errorf("%v answers echo requests", a)
			}
		})
		<-asked
		<-asked
	}
	p.b.forwards.running.Wait()
	cancel()
	pings.Wait()
	if got := p.b.Stats(); dialled.Load() != nil || got.FlowFailed != 2 || got.EchoesSilent != 2 || got.DialRefused != 2 {
		t.Errorf("dialled %v, counted %+v", dialled.Load(), got)
	}
	for _, a := range []string{"192.0.2.9:80", "203.0.113.1:80"} { // named, and not of the host
		dial(t, p.a, "tcp", a)
		if dialled.Load() != a {
			t.Errorf("dialled %v, want %s", dialled.Load(), a)
		}
	}

	// What means this machine wherever it is asked never gets as far as a dial.
	for _, a := range []string{"127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:198.51.100.9", "169.254.169.254", "fe80::1"} {
		if p.b.forwards.allowed(netip.MustParseAddr(a)) {
			t.Errorf("%s is led to the host", a)
		}
	}
}

func TestHostAddressesAreTheSystems(t *testing.T) {
	own, err := hostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if a == netip.MustParseAddr("127.0.0.1") {
			return
		}
	}
	t.Errorf("%v, want 127.0.0.1 among them", own)
}

// The defaults that people are told are those there are.
func TestDocumentedDefaults(t *testing.T) {
	l := Limits{}.withDefaults()
	doctest.WantDefaults(t, "advertise_limits", map[string]any{
		"max_connections":            l.Conns,
		"max_connections_per_client": l.ConnsPerSource,
		"max_flows":                  l.Flows,
		"max_flows_per_client":       l.FlowsPerSource,
		"flow_timeout":               l.FlowIdle,
	})
}
