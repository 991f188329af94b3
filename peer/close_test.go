package peer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// wantNothingLeft returns a function that fails the test if there are goroutines or descriptors by then
// that were not there before.
func wantNothingLeft(t *testing.T) func() {
	t.Helper()
	before := goleak.IgnoreCurrent()
	files := descriptors(t)
	return func() {
		t.Helper()
		goleak.VerifyNone(t, before)
		if now := descriptors(t); now > files {
			t.Errorf("%d descriptors, before %d", now, files)
		}
	}
}

// descriptors is how many files and sockets the process has open; 0 where that cannot be known.
func descriptors(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestThousandPeersLeaveNothing(t *testing.T) {
	check := wantNothingLeft(t)
	l := newLab(t, inMemory, "laptop")
	for range 1000 {
		p := l.start("laptop") // at the address that the one before has given up
		if _, err := p.Listen("tcp", ":80"); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l.relay.Close()
	check()
}

func TestPeersWithSocketsLeaveNothing(t *testing.T) {
	check := wantNothingLeft(t)
	for range 25 {
		l := newLab(t, onLoopback, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		if _, err := web.Listen("tcp", ":80"); err != nil {
			t.Fatal(err)
		}
		dial(t, laptop, "tcp", "10.9.0.3:80")
		near, far := tcpPipe(t)
		link(t, laptop, near, web, far)
		if err := errors.Join(laptop.Close(), web.Close(), l.relay.Close()); err != nil {
			t.Fatal(err)
		}
	}
	check()
}

// A thousand dials to one who does not answer are cancelled, before and after the SYN has left.
func TestCancelledDialsLeaveNothing(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	laptop, _ := l.pair("laptop", "web")
	dial(t, laptop, "udp", "10.9.0.3:1") // the session is there
	l.memory.SetDefault(underlay.Link{Down: true})
	check := wantNothingLeft(t)
	ctx, cancel := context.WithCancel(t.Context())
	var dials sync.WaitGroup
	for i := range 1000 {
		ctx := ctx
		if i%2 == 0 {
			var soon context.CancelFunc
			ctx, soon = context.WithTimeout(ctx, time.Duration(i)*10*time.Microsecond)
			defer soon()
		}
		address := []string{"10.9.0.3:80", "[fd00:9::3]:80", "10.9.0.77:80", "web.adit:80"}[i%4]
		dials.Go(func() {
			if c, err := laptop.DialContext(ctx, "tcp", address); err == nil {
				c.Close()
				t.Error("connected")
			}
		})
	}
	cancel()
	dials.Wait()
	check()
	if n := laptop.Status().Netstack.Established; n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Close in mid-traffic ends calls under way at the closed peer at once, and those at its
// peer, which is told by resets. On a machine that is late some may come to nothing; what is not reset then, the peer's own Close ends.
func TestCloseDuringTraffic(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		check := wantNothingLeft(t)
		l := newLab(t, g, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		var calls sync.WaitGroup
		want := func(what string, ok func(error) bool, call func() error) {
			calls.Go(func() {
				var err error
				for err == nil {
					err = call()
				}
				if !ok(err) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		closed := func(err error) bool { return errors.Is(err, net.ErrClosed) }
		// Who comes second to a reset connection learns only that it is closed, as of the system's sockets.
		reset := func(err error) bool {
			return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || err == io.EOF
		}
		const conns = 4
		told := make(chan error, 2*conns)
		resetOrClosed := func(err error) bool { told <- err; return reset(err) || closed(err) }
		reads := func(c net.Conn) func() error {
			b := make([]byte, 64<<10)
			return func() error { _, err := c.Read(b); return err }
		}
		writes := func(c net.Conn) func() error {
			b := make([]byte, 64<<10)
			return func() error { _, err := c.Write(b); return err }
		}
		for range conns {
			near, far := join(t, laptop, web, "10.9.0.3")
			want("write at the peer", resetOrClosed, writes(near))
			want("read at the peer", resetOrClosed, reads(near))
			want("write at the closed", closed, writes(far))
			want("read at the closed", closed, reads(far))
		}
		accepts := listen(t, web, ":80")
		want("accept at the closed", closed, func() error { _, err := accepts.Accept(); return err })
		packets, err := web.ListenPacket("udp", ":53")
		if err != nil {
			t.Fatal(err)
		}
		want("read of packets at the closed", closed, func() error { _, _, err := packets.ReadFrom(make([]byte, 1)); return err })
		want("dial at the closed", closed, func() error {
			c, err := web.Dial("tcp", "10.9.0.2:80") // refused until then
			if err == nil {
				c.Close()
				return errors.New("connected to nobody")
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		for web.Status().Engine.Traffic.ReceivedBytes < 4<<20 {
			runtime.Gosched()
		}
		web.Close()
		if err := <-told; !reset(err) {
			t.Errorf("the first to end at the peer: %v", err)
		}
		laptop.Close()
		calls.Wait()
		l.relay.Close()
		check()
	})
}

func TestCloseTwiceAndAtOnce(t *testing.T) {
	l := newLab(t, inMemory, "laptop")
	p := l.start("laptop")
	var closes sync.WaitGroup
	for range 10 {
		closes.Go(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closes.Wait()
	for range 2 {
		if err := errors.Join(p.Close(), l.relay.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A call that waits for what never comes ends with Close.
func TestCloseEndsWaiting(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	l.relay.Close()
	p := l.start("laptop")
	var calls sync.WaitGroup
	started := make(chan struct{}, 4)
	for what, call := range map[string]func() error{
		"Ready":              func() error { return p.Ready(context.Background()) },
		"LookupHost":         func() error { _, err := p.LookupHost(context.Background(), "web.adit"); return err },
		"Dial of a name":     func() error { _, err := p.Dial("tcp", "web.adit:80"); return err },
		"Dial of an address": func() error { _, err := p.Dial("tcp", "10.9.0.3:80"); return err },
	} {
		calls.Go(func() {
			started <- struct{}{}
			wantClosed(t, what, call())
		})
	}
	for range cap(started) {
		<-started
	}
	p.Close()
	calls.Wait()
}

func TestUseAfterClose(t *testing.T) {
	l := newLab(t, onLoopback, "laptop", "web")
	p := l.start("laptop")
	client := p.HTTPClient()
	p.Close()
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"Dial":         func() error { _, err := p.Dial("tcp", "10.9.0.3:80"); return err },
		"Dial by name": func() error { _, err := p.Dial("tcp", "web.adit:80"); return err },
		"Dial of UDP":  func() error { _, err := p.DialContext(ctx, "udp", "10.9.0.3:53"); return err },
		"LookupHost":   func() error { _, err := p.LookupHost(ctx, "laptop"); return err },
		"Listen":       func() error { _, err := p.Listen("tcp", ":80"); return err },
		"ListenPacket": func() error { _, err := p.ListenPacket("udp", ":53"); return err },
		"Ready":        func() error { return p.Ready(ctx) },
		"HTTPClient":   func() error { _, err := client.Get("http://10.9.0.3/"); return err },
		"later client": func() error { _, err := p.HTTPClient().Get("http://web.adit/"); return err },
	} {
		wantClosed(t, what, call())
	}
	if st := p.Status(); st.Name != "laptop" || st.PublicKey != p.PublicKey() || len(st.Addresses) != 2 {
		t.Errorf("%+v", st)
	}
	l.relay.Close()
	l.relay.Status()
	near, _ := pipe(t)
	wantClosed(t, "Link to a relay", l.relay.Link(near))
}

// Each way in which a start can fail, by a Config that is well but for one thing. The error says what is
// wrong, and nothing is left open, the carrier that was given included.
func TestStartFails(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	other, otherRelay := newKey(t).Public(), newKey(t).Public()
	remote := config.Remote{Name: "web", PublicKey: other, AllowedIPs: single(addresses(1))}
	key := newKey(t)
	for _, test := range []struct {
		alter func(*peer.Config)
		want  string
	}{
		{func(c *peer.Config) { c.PrivateKey = wire.PrivateKey{} }, "PrivateKey: is not set"},
		{func(c *peer.Config) { c.Addresses = nil }, "Addresses: at least one"},
		{func(c *peer.Config) { c.Addresses = make([]netip.Prefix, 1) }, "Addresses[0]"},
		{func(c *peer.Config) { c.Addresses = append(c.Addresses, c.Addresses[0]) }, "Addresses[2]"},
		{func(c *peer.Config) { c.Addresses[1] = netip.MustParsePrefix("::ffff:10.9.0.2/120") }, "Addresses[1]"},
		{func(c *peer.Config) { c.Addresses[1] = netip.MustParsePrefix("ff02::1/64") }, "Addresses[1]"},
		{func(c *peer.Config) { c.Mode = "kernel" }, `unknown mode "kernel"`},
		{func(c *peer.Config) { c.Name = "My Laptop" }, "Name"},
		{func(c *peer.Config) { c.MTU = -44 }, "MTU"}, // what a sealed packet has besides
		{func(c *peer.Config) { c.MTU = 1 << 20 }, "MTU"},
		{func(c *peer.Config) { c.MTU = 1000 }, "MTU"}, // too small for IPv6
		{func(c *peer.Config) { c.RekeyAfter = time.Nanosecond }, "RekeyAfter"},
		{func(c *peer.Config) { c.RekeyAfter = -time.Second }, "RekeyAfter"},
		{func(c *peer.Config) { c.RekeyAfter = time.Hour }, "RekeyAfter"},
		{func(c *peer.Config) { c.Keepalive = -time.Second }, "Keepalive"},
		{func(c *peer.Config) { c.Listen = busy.LocalAddr().String() }, "address already in use"},
		{func(c *peer.Config) { c.Listen = "nonsense" }, "nonsense"},
		{func(c *peer.Config) { c.Advertise = make([]netip.Prefix, 1) }, "Advertise[0]"},
		{func(c *peer.Config) { c.Mode, c.Advertise = config.ModeTUN, single(addresses(9)) }, "Advertise"},
		{func(c *peer.Config) { c.Carriers = append(c.Carriers, nil) }, "Carriers[1]: is nil"},
		{func(c *peer.Config) { c.Relays = make([]config.RelayEndpoint, 1) }, "Relays[0]"},
		{func(c *peer.Config) { c.Relays = []config.RelayEndpoint{{PublicKey: key.Public()}} }, "own public key"},
		{func(c *peer.Config) { c.Relays = []config.RelayEndpoint{{PublicKey: otherRelay, Endpoint: "relay"}} }, `endpoint "relay"`},
		{func(c *peer.Config) {
			c.Relays = []config.RelayEndpoint{{PublicKey: otherRelay}, {PublicKey: otherRelay}}
		}, "Relays[1]"},
		{func(c *peer.Config) { c.Peers = make([]config.Remote, 1) }, "Peers[0]"},
		{func(c *peer.Config) { c.Peers[0].Name = "Web" }, "Peers[0].Name"},
		{func(c *peer.Config) { c.Peers[0].Name = "laptop" }, `"laptop" is taken by Name`},
		{func(c *peer.Config) { c.Peers[0].Endpoint = "web.example:0" }, "Peers[0]"},
		{func(c *peer.Config) { c.Peers[0].AllowedIPs = nil }, "Peers[0].AllowedIPs"},
		{func(c *peer.Config) { c.Peers[0].AllowedIPs = addresses(1) }, "Peers[0].AllowedIPs"}, // not masked
		{func(c *peer.Config) { c.Peers[0].AllowedIPs = single(addresses(0)) }, "taken by Addresses"},
		{func(c *peer.Config) { c.Peers = append(c.Peers, c.Peers[0]) }, "Peers[1].Name"},
		{func(c *peer.Config) { c.Peers = append(c.Peers, c.Peers[0]); c.Peers[1].Name = "" }, "taken by Peers[0]"},
		{func(c *peer.Config) {
			c.Peers = append(c.Peers, config.Remote{PublicKey: other, AllowedIPs: single(addresses(2))})
		}, "Peers[1]"},
	} {
		check := wantNothingLeft(t)
		near, far := net.Pipe()
		cfg := peer.Config{
			Carriers: []underlay.Carrier{underlay.NewStream(near, underlay.Config{})},
			Peer: config.Peer{
				Name: "laptop", Mode: config.ModeNetstack, PrivateKey: key, Addresses: addresses(0), Listen: "127.0.0.1:0",
				Peers: []config.Remote{remote},
			},
		}
		test.alter(&cfg)
		p, err := peer.Start(t.Context(), cfg)
		if err == nil {
			p.Close()
			t.Errorf("started, want an error with %q", test.want)
			continue
		}
		if msg := err.Error(); !strings.HasPrefix(msg, "peer: ") || !strings.Contains(msg, test.want) || strings.Contains(msg, "\n") {
			t.Errorf("error %q, want one with %q", msg, test.want)
		}
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the carrier is not closed: %v", test.want, err)
		}
		check()
	}
}

func TestStartRelayFails(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	key, laptop, web := newKey(t), newKey(t).Public(), newKey(t).Public()
	for _, test := range []struct {
		alter func(*peer.RelayConfig)
		want  string
	}{
		{func(c *peer.RelayConfig) { c.PrivateKey = wire.PrivateKey{} }, "PrivateKey: is not set"},
		{func(c *peer.RelayConfig) { c.Members = nil }, "Members: at least one"},
		{func(c *peer.RelayConfig) { c.Members[1].Name = "laptop" }, `"laptop" is taken by Members[0]`},
		{func(c *peer.RelayConfig) { c.Members[1].PublicKey = laptop }, `"web"`},
		{func(c *peer.RelayConfig) { c.Members[1].PublicKey = wire.PublicKey{} }, `"web"`},
		{func(c *peer.RelayConfig) { c.Members[1].AllowedIPs = nil }, "Members[1].AllowedIPs"},
		{func(c *peer.RelayConfig) { c.Members[1].AllowedIPs = c.Members[0].AllowedIPs }, "taken by Members[0]"},
		{func(c *peer.RelayConfig) { c.Limits.CircuitsPerMember = -1 }, "Limits"},
		{func(c *peer.RelayConfig) { c.Limits.BytesPerSecondPerMember = -1 }, "Limits"},
		{func(c *peer.RelayConfig) { c.Listen = busy.LocalAddr().String() }, "address already in use"},
		{func(c *peer.RelayConfig) { c.Addresses = addresses(0) }, "taken by Addresses"},
		{func(c *peer.RelayConfig) { c.Addresses, c.MTU = addresses(5), 1000 }, "MTU"},
		{func(c *peer.RelayConfig) { c.Addresses, c.Mode = addresses(5), "kernel" }, `unknown mode "kernel"`},
		{func(c *peer.RelayConfig) { c.Addresses, c.Listen = addresses(5), busy.LocalAddr().String() }, "address already in use"},
		{func(c *peer.RelayConfig) { c.Carriers = append(c.Carriers, nil) }, "Carriers[1]: is nil"},
	} {
		check := wantNothingLeft(t)
		near, far := net.Pipe()
		cfg := peer.RelayConfig{
			Carriers: []underlay.Carrier{underlay.NewStream(near, underlay.Config{})},
			Relay: config.Relay{
				PrivateKey: key, Mode: config.ModeNetstack, Listen: "127.0.0.1:0",
				Members: []config.Member{
					{Name: "laptop", PublicKey: laptop, AllowedIPs: single(addresses(0))},
					{Name: "web", PublicKey: web, AllowedIPs: single(addresses(1))},
				},
			},
		}
		test.alter(&cfg)
		r, err := peer.StartRelay(t.Context(), cfg)
		if err == nil {
			r.Close()
			t.Errorf("started, want an error with %q", test.want)
			continue
		}
		if msg := err.Error(); !strings.HasPrefix(msg, "relay: ") || !strings.Contains(msg, test.want) {
			t.Errorf("error %q, want one with %q", msg, test.want)
		}
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the carrier is not closed: %v", test.want, err)
		}
		check()
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := wantNothingLeft(t)
	_, err := peer.Start(ctx, peer.Config{Peer: config.Peer{Mode: config.ModeNetstack, PrivateKey: newKey(t), Addresses: addresses(0)}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := peer.StartRelay(ctx, peer.RelayConfig{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	check()

	// Once started, the peer does not depend on it.
	ctx, cancel = context.WithCancel(t.Context())
	p, err := peer.Start(ctx, peer.Config{NoUDP: true, Peer: config.Peer{Mode: config.ModeNetstack, PrivateKey: newKey(t), Addresses: addresses(0)}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cancel()
	near, far := join(t, p, p, "10.9.0.2")
	exchange(t, near, far, "still here")
}

// What is not said in a Config made by hand gets the default. An advertised network keeps the test out of
// TUN mode, which the mode left empty would take where it may.
func TestZeroConfigIsUseful(t *testing.T) {
	p := startPeer(t, peer.Config{Peer: config.Peer{
		PrivateKey: newKey(t), Addresses: addresses(0), Advertise: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}})
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	st := p.Status()
	if st.Mode != config.ModeNetstack || st.ModeReason == "" || !st.UDPAddress.Addr().IsUnspecified() || st.UDPAddress.Port() == 0 || st.Underlay == nil {
		t.Errorf("%+v", st)
	}
	near, far := join(t, p, p, "fd00:9::2")
	exchange(t, near, far, "alone")
}
