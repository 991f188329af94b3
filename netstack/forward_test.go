package netstack

import (
	"bytes"
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
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
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
	Echo:      func(context.Context, netip.Addr, []byte) error { return errors.New("no answer") },
	Addresses: func() ([]netip.Addr, error) { return nil, nil },
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
	return newForwardingPairWith(t, host, pairOption{b: set})
}

// newForwardingPairWith is newForwardingPair with more options. The configuration b asks for is that of a
// forwarding stack to begin with.
func newForwardingPairWith(t testing.TB, host Host, opt pairOption) *pair {
	set := opt.b
	opt.b = func(c *Config) {
		c.Advertise = []netip.Prefix{advertised, netip.MustParsePrefix("2001:db8::/64")}
		c.Host = host
		c.Limits.DialTimeout = time.Hour // a slow machine is no silent host
		if set != nil {
			set(c)
		}
	}
	return newPair(t, opt)
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
	// In a's time nothing ever passes, so that it sends no SYN again: each dial is one of b's.
	p := newForwardingPairWith(t, host, pairOption{clock: faketime.NewManualClock()})
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
	p.b.forwards.running.Wait()
	select {
	case err := <-dialled:
		t.Errorf("ended with %v though the host said nothing", err)
	default:
	}
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := p.b.Stats(); got.DialRefused != 3 || got.DialSilent != 1 || got.Forwarded != 0 {
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
	asked := make(chan struct{}, 10) // b has had a SYN
	p := newForwardingPairWith(t, host, pairOption{
		b:     func(c *Config) { c.Limits.DialsPerSource = 2 },
		clock: faketime.NewManualClock(), // no SYN is sent again
		delivered: func(toB bool, _ []byte) {
			if toB {
				asked <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	for range 3 {
		dials.Go(func() { p.a.DialContext(ctx, "tcp", hostAddr+":80") })
	}
	for range 3 {
		<-asked
	}
	<-dialling
	<-dialling
	if got := p.b.Stats().DialsLimited; got != 1 {
		t.Errorf("%d of 3 dials were turned down, want 1", got)
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
	host := loopbackHost(t, echo.LocalAddr().String())
	toEcho := host.Dial
	far := make(chan net.Conn, 3)
	host.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := toEcho(ctx, network, address)
		far <- c
		return c, err
	}
	limited := make(chan struct{}, 1)
	p := newForwardingPairWith(t, host, pairOption{
		b: func(c *Config) {
			c.Limits.FlowsPerSource = 2
			c.Limits.FlowIdle = time.Hour
		},
		delivered: func(toB bool, b []byte) {
			if toB && bytes.HasSuffix(b, []byte("one too many")) {
				limited <- struct{}{}
			}
		},
	})
	for range 2 {
		c := dial(t, p.a, "udp", hostAddr+":53")
		for _, m := range []string{"first", "second", string(make([]byte, 3000))} {
			c.Write([]byte(m))
			wantDatagram(t, c.(net.PacketConn), m)
		}
	}
	third := dial(t, p.a, "udp", hostAddr+":53")
	third.Write([]byte("one too many"))
	<-limited
	if got := p.b.Stats(); got.FlowsLimited != 1 || got.FlowsOpen != 2 {
		t.Errorf("%d datagrams turned down, %d flows open; want 1 and 2", got.FlowsLimited, got.FlowsOpen)
	}
	for range 2 { // flows that end make room
		(<-far).Close()
	}
	p.b.forwards.running.Wait()
	third.Write([]byte("now"))
	wantDatagram(t, third.(net.PacketConn), "now")
	if got := p.b.Stats().Flows; got != 3 {
		t.Errorf("%d flows, want 3", got)
	}
}

// Datagrams one way only keep both directions open; then nothing does.
func TestFlowEndsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, near := net.Pipe()
		far, server := net.Pipe()
		start := time.Now()
		var ended time.Duration
		var flow sync.WaitGroup
		flow.Go(func() {
			exchange(t.Context(), near, far, time.Minute, new(atomic.Uint64))
			ended = time.Since(start)
		})
		b := make([]byte, 10)
		for range 5 {
			time.Sleep(50 * time.Second)
			client.Write([]byte("x"))
			if n, err := server.Read(b); n != 1 || err != nil {
				t.Fatalf("after %v: %d, %v", time.Since(start), n, err)
			}
		}
		flow.Wait()
		if want := 5*50*time.Second + time.Minute; ended != want {
			t.Errorf("ended after %v, want %v", ended, want)
		}
		for _, c := range []net.Conn{client, server} {
			if _, err := c.Read(b); err != io.EOF {
				t.Errorf("the other side is not closed: %v", err)
			}
		}
	})
}

func TestEchoIsAnsweredOnceTheHostWas(t *testing.T) {
	host := refusingHost
	silent := make(chan struct{})
	host.Echo = func(_ context.Context, a netip.Addr, payload []byte) error {
		if len(payload) != pingPayload {
			t.Errorf("payload of %d bytes", len(payload))
		}
		if a == netip.MustParseAddr("192.0.2.8") {
			close(silent)
			return os.ErrDeadlineExceeded
		}
		return nil
	}
	p := newForwardingPair(t, host, nil)
	for _, a := range []string{hostAddr, "2001:db8::7"} {
		if _, err := p.a.Ping(context.Background(), netip.MustParseAddr(a)); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-silent
		p.b.forwards.running.Wait() // an answer would have been sent by now
		cancel()
	}()
	if _, err := p.a.Ping(ctx, netip.MustParseAddr("192.0.2.8")); !errors.Is(err, context.Canceled) {
		t.Errorf("answered for a host that is silent: %v", err)
	}
	if got := p.b.Stats(); got.Echoes != 2 || got.EchoesSilent != 1 {
		t.Errorf("counted %+v", got)
	}
}

// The far side closes first, so that TIME_WAIT is on the forwarder; the client comes back by the same
// port at once.
func TestForwarderReopensPortsInTimeWait(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 500
	}
	l := hostListen(t)
	closeAll(l)
	clock := faketime.NewManualClock()
	p := newForwardingPairWith(t, loopbackHost(t, l.Addr().String()), pairOption{clock: clock})
	// Few ports, so that they come round soon.
	if err := p.a.ip.g.SetPortRange(20000, 20009); err != nil {
		t.Fatal(err)
	}
	quickConnections(t, p.a, clock, hostAddr+":80", n)
	if p.b.Stats().TimeWaitReused == 0 {
		t.Error("no port was met in TIME_WAIT: this test shows nothing")
	}
}

func TestListenerTakesManyQuickConnections(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2000
	}
	clock := faketime.NewManualClock()
	p := newPair(t, pairOption{clock: clock})
	if err := p.a.ip.g.SetPortRange(20000, 20999); err != nil {
		t.Fatal(err)
	}
	closeAll(listen(t, p.b, "tcp", ":80"))
	quickConnections(t, p.a, clock, addrB+":80", n)
}

// closeAll closes whatever l accepts at once, until l is closed.
func closeAll(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// quickConnections opens n connections in a row and reads each to its end. For the stacks no time passes while
// it does: a SYN that was dropped is never sent again, and the test waits until its own time is over.
func quickConnections(t *testing.T, s *Stack, clock *faketime.ManualClock, address string, n int) {
	t.Helper()
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Second))
		defer cancel()
	}
	var slowest time.Duration
	defer func() { t.Logf("the slowest dial of %d took %v", n, slowest) }()
	for i := range n {
		start := time.Now()
		c, err := s.DialContext(ctx, "tcp", address)
		if err != nil {
			t.Fatalf("connection %d would have had to ask again: %v", i, err)
		}
		slowest = max(slowest, time.Since(start))
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		c.Close()
		clock.Advance(time.Millisecond) // initial sequence numbers follow the clock
	}
}
