package peer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// A lab is a relay and peers without privileges, on loopback or on a network in memory.
//
//	l := newLab(t, inMemory, "laptop", "web")
//	web := l.start("web")
type lab struct {
	t       testing.TB
	ground  ground
	memory  *underlay.Memory
	relay   *peer.Relay
	key     wire.PrivateKey // the relay's
	members []member
}

// ground is what the overlay lies on.
type ground string

const (
	inMemory   ground = "memory"
	onLoopback ground = "loopback"
)

type member struct {
	name string
	key  wire.PrivateKey
}

// relayAddr is where the relay is in memory. The i-th member is at 192.0.2.1+i there, and at
// 10.9.0.2+i and fd00:9::2+i on the overlay.
var relayAddr = netip.MustParseAddrPort("192.0.2.1:5040")

// newLab starts a relay that has the members named. They are started by start.
func newLab(t testing.TB, g ground, names ...string) *lab {
	t.Helper()
	l := &lab{t: t, ground: g, key: newKey(t)}
	cfg := peer.RelayConfig{Relay: config.Relay{PrivateKey: l.key, Listen: "127.0.0.1:0"}}
	for i, name := range names {
		m := member{name: name, key: newKey(t)}
		l.members = append(l.members, m)
		cfg.Members = append(cfg.Members, config.Member{Name: name, PublicKey: m.key.Public(), AllowedIPs: single(addresses(i))})
	}
	if g == inMemory {
		l.memory = underlay.NewMemory(underlay.MemoryConfig{Coalesce: true})
		cfg.NoUDP = true
		cfg.Carriers = []underlay.Carrier{l.attach(relayAddr)}
	}
	r, err := peer.StartRelay(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	l.relay = r
	return l
}

func (l *lab) attach(at netip.AddrPort) underlay.Carrier {
	l.t.Helper()
	n, err := l.memory.Attach(at)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// start starts the member called name, as a peer that knows its relay alone.
func (l *lab) start(name string, alter ...func(*peer.Config)) *peer.Peer {
	l.t.Helper()
	for i, m := range l.members {
		if m.name != name {
			continue
		}
		cfg := peer.Config{Peer: config.Peer{
			Name: name, Mode: config.ModeNetstack, PrivateKey: m.key, Addresses: addresses(i), Listen: "127.0.0.1:0",
			Relays: []config.RelayEndpoint{{PublicKey: l.key.Public(), Endpoint: relayAddr.String()}},
		}}
		if l.ground == inMemory {
			cfg.NoUDP = true
			cfg.Carriers = []underlay.Carrier{l.attach(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i)}), 5040))}
		} else {
			cfg.Relays[0].Endpoint = l.relay.Status().UDPAddress.String()
		}
		for _, f := range alter {
			f(&cfg)
		}
		return startPeer(l.t, cfg)
	}
	l.t.Fatalf("no member called %q", name)
	return nil
}

// startOnline starts members and returns when the relay knows them to be there: it has answered a question
// of each.
func (l *lab) startOnline(names ...string) []*peer.Peer {
	l.t.Helper()
	var all []*peer.Peer
	for _, name := range names {
		all = append(all, l.start(name))
	}
	for _, p := range all {
		var dns *net.DNSError
		if _, err := p.LookupHost(soon(l.t), "nobody.adit"); !errors.As(err, &dns) || !dns.IsNotFound {
			l.t.Fatal(err)
		}
	}
	return all
}

func (l *lab) pair(one, other string) (*peer.Peer, *peer.Peer) {
	l.t.Helper()
	both := l.startOnline(one, other)
	return both[0], both[1]
}

func startPeer(t testing.TB, cfg peer.Config) *peer.Peer {
	t.Helper()
	p, err := peer.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newKey(t testing.TB) wire.PrivateKey {
	t.Helper()
	k, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// addresses are those of the i-th member.
func addresses(i int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(2 + i)}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd00:9::%x/64", 2+i)),
	}
}

// single are the addresses without the networks they are in.
func single(addresses []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addresses {
		all = append(all, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	return all
}

// soon bounds what takes milliseconds; reaching it is a failure.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, p *peer.Peer, network, address string) net.Conn {
	t.Helper()
	c, err := p.DialContext(soon(t), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func listen(t testing.TB, p *peer.Peer, address string) net.Listener {
	t.Helper()
	l, err := p.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// join returns both ends of a TCP connection from one peer to an address of another.
func join(t testing.TB, from, to *peer.Peer, host string) (near, far net.Conn) {
	t.Helper()
	l := listen(t, to, net.JoinHostPort(host, "0"))
	defer l.Close()
	near = dial(t, from, "tcp", l.Addr().String())
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// exchange fails the test unless a line goes from one end to the other and back.
func exchange(t testing.TB, near, far net.Conn, line string) {
	t.Helper()
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		for _, c := range way {
			c.SetDeadline(time.Now().Add(time.Minute))
			defer c.SetDeadline(time.Time{})
		}
		if _, err := way[0].Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(line)+1)
		n := 0
		for n < len(line) {
			m, err := way[1].Read(b[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if got := string(b[:n]); got != line {
			t.Fatalf("received %q, want %q", got, line)
		}
	}
}

func wantClosed(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s: %v, want net.ErrClosed", what, err)
	}
}
