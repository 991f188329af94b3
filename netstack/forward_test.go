package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// advertised is the network b leads into in these tests; hostAddr is a machine in it.
var (
	advertised = netip.MustParsePrefix("192.0.2.0/24")
	hostAddr   = "192.0.2.7"
)

// refusingHost is a host that reaches nobody.
var refusingHost = Host{
	Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	},
	Echo: func(context.Context, netip.Addr, []byte) error { return errors.New("no answer") },
}

// loopbackHost leads every dial to a listener on loopback, whatever its address.
func loopbackHost(t testing.TB, to string) Host {
	h := refusingHost
	h.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(address); host != hostAddr && host != "2001:db8::7" {
			t.Errorf("dialled %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}
	return h
}

func newForwardingPair(t testing.TB, host Host, set func(*Config)) *pair {
	return newPair(t, pairOption{b: func(c *Config) {
		c.Advertise = []netip.Prefix{advertised, netip.MustParsePrefix("2001:db8::/64")}
		c.Host = host
		if set != nil {
			set(c)
		}
	}})
}

func hostListen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestForwardedConnectionKeepsHalfClose(t *testing.T) {
	l := hostListen(t)
	p := newForwardingPair(t, loopbackHost(t, l.Addr().String()), nil)
	for _, host := range []string{hostAddr, "2001:db8::7"} {
		near := dial(t, p.a, "tcp", net.JoinHostPort(host, "80"))
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		transfer(t, near, far, 5<<20)
		transfer(t, far, near, 20<<20) // after near has closed its side
	}
	if got := p.b.Stats().Forwarded; got != 2 {
		t.Errorf("%d forwarded, want 2", got)
	}
}

func TestForwardedDialTellsTheTruth(t *testing.T) {
	var dials atomic.Int64
	answer := make(chan error)
	host := refusingHost
	host.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials.Add(1)
		select {
		case err := <-answer:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p := newForwardingPair(t, host, nil)
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		go func() { answer <- os.NewSyscallError("connect", errno) }()
		if _, err := p.a.Dial("tcp", hostAddr+":80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("host says %v: %v, want a refusal", errno, err)
		}
	}

	// Silence: while the host waits the near side does too.
	ctx, cancel := context.WithCancel(context.Background())
	dialled := make(chan error)
	go func() {
		_, err := p.a.DialContext(ctx, "tcp", hostAddr+":80")
		dialled <- err
	}()
	answer <- os.ErrDeadlineExceeded
	select {
	case err := <-dialled:
		t.Errorf("ended with %v though the host said nothing", err)
	default:
	}
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := p.b.Stats(); got.DialRefused != 3 || got.DialSilent < 1 || got.Forwarded != 0 {
		t.Errorf("counted %+v", got)
	}
}

func TestOwnPortsNeverReachTheHost(t *testing.T) {
	host := refusingHost
	host.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("dialled %s", address)
		return nil, syscall.ECONNREFUSED
	}
	// Even where the own address is inside what is advertised.
	p := newForwardingPair(t, host, func(c *Config) {
		c.Advertise = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	})
	for _, address := range []string{addrB, addrB6} {
		if _, err := p.a.Dial("tcp", net.JoinHostPort(address, "81")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want ECONNREFUSED", err)
		}
		u := dial(t, p.a, "udp", net.JoinHostPort(address, "81"))
		u.Write([]byte("x"))
		u.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := u.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want ECONNREFUSED", err)
		}
	}
}

func TestAllowed(t *testing.T) {
	s := newStack(t, func(c *Config) {
		c.Advertise = []netip.Prefix{
			netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("198.51.100.4/31"),
			netip.MustParsePrefix("203.0.113.5/32"), netip.MustParsePrefix("127.0.0.0/8"),
			netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
			netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("::/0"),
		}
		c.Host = refusingHost
	})
	for a, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.254": true, "192.0.2.0": false, "192.0.2.255": false, "192.0.3.1": false,
		"198.51.100.4": true, "198.51.100.5": true, "203.0.113.5": true, "203.0.113.6": false,
		"127.0.0.1": false, "127.1.2.3": false, "169.254.169.254": false, "224.0.0.1": false,
		"255.255.255.255": false, "0.0.0.0": false, addrA: false, "10.9.0.9": true,
		"2001:db8::1": true, "::1": false, "::": false, "fe80::1": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:192.0.2.1": false, addrA6: false,
	} {
		if got := s.forwards.allowed(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
}

func TestDialsAreLimitedPerSource(t *testing.T) {
	dialling := make(chan struct{}, 10)
	host := refusingHost
	host.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialling <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p := newForwardingPair(t, host, func(c *Config) { c.Limits.DialsPerSource = 2 })
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	for range 3 {
		dials.Go(func() { p.a.DialContext(ctx, "tcp", hostAddr+":80") })
	}
	<-dialling
	<-dialling
	for p.b.Stats().DialsLimited == 0 {
		time.Sleep(time.Millisecond)
	}
	if len(dialling) != 0 {
		t.Error("a third dial was begun")
	}
	cancel()
	dials.Wait()
}

func TestForwardedDatagrams(t *testing.T) {
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			echo.WriteTo(b[:n], from)
		}
	}()
	p := newForwardingPair(t, loopbackHost(t, echo.LocalAddr().String()), func(c *Config) {
		c.Limits.FlowsPerSource = 2
		c.Limits.FlowIdle = 300 * time.Millisecond
	})
	var clients []net.Conn
	for range 2 {
		c := dial(t, p.a, "udp", hostAddr+":53")
		clients = append(clients, c)
		for _, m := range []string{"first", "second", string(make([]byte, 3000))} {
			c.Write([]byte(m))
			wantDatagram(t, c.(net.PacketConn), m)
		}
	}
	third := dial(t, p.a, "udp", hostAddr+":53")
	third.Write([]byte("one too many"))
	for p.b.Stats().FlowsLimited == 0 {
		time.Sleep(time.Millisecond)
	}
	// Flows end by themselves when nothing comes, and make room.
	for p.b.Stats().FlowsOpen != 0 {
		time.Sleep(time.Millisecond)
	}
	third.Write([]byte("now"))
	wantDatagram(t, third.(net.PacketConn), "now")
	if got := p.b.Stats().Flows; got != 3 {
		t.Errorf("%d flows, want 3", got)
	}
}

func TestEchoIsAnsweredOnceTheHostWas(t *testing.T) {
	host := refusingHost
	host.Echo = func(_ context.Context, a netip.Addr, payload []byte) error {
		if len(payload) != pingPayload {
			t.Errorf("payload of %d bytes", len(payload))
		}
		if a == netip.MustParseAddr("192.0.2.8") {
			return os.ErrDeadlineExceeded
		}
		return nil
	}
	p := newForwardingPair(t, host, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, a := range []string{hostAddr, "2001:db8::7"} {
		if _, err := p.a.Ping(ctx, netip.MustParseAddr(a)); err != nil {
			t.Error(err)
		}
	}
	silent, cancel := context.WithCancel(ctx)
	go func() {
		for p.b.Stats().EchoesSilent == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := p.a.Ping(silent, netip.MustParseAddr("192.0.2.8")); !errors.Is(err, context.Canceled) {
		t.Errorf("answered for a host that is silent: %v", err)
	}
	if got := p.b.Stats(); got.Echoes != 2 || got.EchoesSilent != 1 {
		t.Errorf("counted %+v", got)
	}
}

// The far side closes first, so that TIME_WAIT is on the forwarder; the client comes back by the same
// port at once.
func TestForwarderReopensPortsInTimeWait(t *testing.T) {
	l := hostListen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	p := newForwardingPair(t, loopbackHost(t, l.Addr().String()), nil)
	// Few ports, so that they come round soon.
	if err := p.a.ip.g.SetPortRange(20000, 20009); err != nil {
		t.Fatal(err)
	}
	slowest := quickConnections(t, p.a, hostAddr+":80", 1000)
	if slowest > 500*time.Millisecond {
		t.Errorf("slowest dial took %v", slowest)
	}
	if p.b.Stats().TimeWaitReused == 0 {
		t.Error("no port was met in TIME_WAIT: this test shows nothing")
	}
}

// quickConnections opens n connections in a row, reads each to its end, and returns how long the
// slowest took to open.
func quickConnections(t *testing.T, s *Stack, address string, n int) (slowest time.Duration) {
	t.Helper()
	for i := range n {
		start := time.Now()
		c, err := s.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		slowest = max(slowest, time.Since(start))
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		c.Close()
	}
	return slowest
}

func TestListenerTakesManyQuickConnections(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2000
	}
	p := newPair(t, pairOption{})
	l := listen(t, p.b, "tcp", ":80")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if slowest := quickConnections(t, p.a, addrB+":80", n); slowest > 500*time.Millisecond {
		t.Errorf("slowest dial took %v", slowest)
	}
}
