package underlay_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/underlay"
)

// Kinds of datagrams, as their first byte.
const (
	otherKind = 1
	shedKind  = 6
	lastKind  = 0xff
)

func open(t *testing.T, host string, port uint16, cfg underlay.Config) *underlay.UDP {
	t.Helper()
	u, err := underlay.ListenUDP(t.Context(), net.JoinHostPort(host, fmt.Sprint(port)), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// send sends n datagrams of a kind, one by one. The receiver may be bound to no address of its own.
func send(t *testing.T, from, to *underlay.UDP, kind byte, n int) {
	t.Helper()
	addr := to.LocalAddr()
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(from.LocalAddr().Addr(), addr.Port())
	}
	for range n {
		if err := from.Send([]underlay.Message{{Buf: []byte{kind, 0, 0, 0}, Seg: 4, Addr: addr}}); err != nil {
			t.Fatal(err)
		}
	}
}

// kinds receives what was sent to u so far, and returns of which kinds it was. On the loopback, nothing overtakes.
func kinds(t *testing.T, from, u *underlay.UDP) (all []byte) {
	t.Helper()
	send(t, from, u, lastKind, 1)
	ms := make([]underlay.Message, underlay.MaxBatch)
	for {
		n, err := u.Receive(ms)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			for at := 0; at < len(m.Buf); at += m.Seg {
				if m.Buf[at] == lastKind {
					return all
				}
				all = append(all, m.Buf[at])
			}
		}
	}
}

// TestShedDropsOneKindFromOneAddress, and nothing else, in either family, until it is lifted; and what is dropped is counted.
func TestShedDropsOneKindFromOneAddress(t *testing.T) {
	for _, tt := range []struct {
		name, listen string
		from         string // where the one is who is shed
		neighbour    string // where another is, at the same port
		portable     bool
	}{
		{"IPv4", "127.0.0.1", "127.0.0.1", "127.0.0.2", false},
		{"IPv6", "::1", "::1", "", false},
		{"IPv4 at a socket of both", "", "127.0.0.1", "127.0.0.2", false},
		{"IPv6 at a socket of both", "", "::1", "127.0.0.2", false},
		{"portable", "127.0.0.1", "127.0.0.1", "127.0.0.2", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needFamily(t, tt.from)
			const each = 5
			cfg := underlay.Config{}
			to := open(t, tt.listen, 0, underlay.Config{Portable: tt.portable})
			foe, friend := open(t, tt.from, 0, cfg), open(t, tt.from, 0, cfg)
			senders := []*underlay.UDP{foe, friend}
			if tt.neighbour != "" {
				needFamily(t, tt.neighbour)
				senders = append(senders, open(t, tt.neighbour, foe.LocalAddr().Port(), cfg))
			}
			want := func(shed int) {
				t.Helper()
				for _, u := range senders {
					send(t, u, to, shedKind, each)
					send(t, u, to, otherKind, each)
				}
				got := kinds(t, friend, to)
				if n := bytes.Count(got, []byte{shedKind}); n != shed {
					t.Errorf("received %d of what is shed, want %d", n, shed)
				}
				if n := bytes.Count(got, []byte{otherKind}); n != each*len(senders) {
					t.Errorf("received %d of another kind, want %d", n, each*len(senders))
				}
			}
			want(each * len(senders))
			if err := to.Shed([]underlay.Shed{{From: friend.LocalAddr(), Kind: 99}, {From: foe.LocalAddr(), Kind: shedKind}}); err != nil {
				t.Fatal(err)
			}
			want(each * (len(senders) - 1))
			if n := to.Stats().Drops.ReceiveBuffer; n != each {
				t.Errorf("%d counted as dropped, want %d", n, each)
			}
			for range 2 { // the second time there is nothing to lift
				if err := to.Shed(nil); err != nil {
					t.Fatal(err)
				}
			}
			want(each * len(senders))
		})
	}
}

// TestShedKeepsAShare: of two thousand datagrams half, but for chance, which strays by a tenth of all less often than once in 10^15 runs.
func TestShedKeepsAShare(t *testing.T) {
	const all = 2000
	to, from := open(t, "127.0.0.1", 0, underlay.Config{}), open(t, "127.0.0.1", 0, underlay.Config{})
	for _, tt := range []struct {
		keep        float64
		least, most int
	}{
		{1, all, all}, {2, all, all},
		{0.5, all * 4 / 10, all * 6 / 10},
		{0, 0, 0}, {-1, 0, 0},
	} {
		if err := to.Shed([]underlay.Shed{{From: from.LocalAddr(), Kind: shedKind, Keep: tt.keep}}); err != nil {
			t.Fatal(err)
		}
		got := 0
		for range 10 { // not more at a time than a small buffer holds
			send(t, from, to, shedKind, all/10)
			got += len(kinds(t, from, to))
		}
		if got < tt.least || got > tt.most {
			t.Errorf("keeping %v: received %d of %d, want %d to %d", tt.keep, got, all, tt.least, tt.most)
		}
	}
}

// TestShedTakesAsManyAsItSays: so many of the longest rules, of which the last is heeded like the first. One more is refused, and
// changes nothing.
func TestShedTakesAsManyAsItSays(t *testing.T) {
	needFamily(t, "::1")
	to := open(t, "::1", 0, underlay.Config{})
	var senders []*underlay.UDP
	var sheds []underlay.Shed
	for range underlay.MaxSheds + 1 {
		u := open(t, "::1", 0, underlay.Config{})
		senders = append(senders, u)
		sheds = append(sheds, underlay.Shed{From: u.LocalAddr(), Kind: shedKind, Keep: 1e-12})
	}
	if err := to.Shed(sheds[:underlay.MaxSheds]); err != nil {
		t.Fatal(err)
	}
	if err := to.Shed(sheds); err == nil {
		t.Error("one more than that, and no error")
	}
	for _, u := range senders {
		send(t, u, to, shedKind, 1)
	}
	if got := kinds(t, senders[0], to); len(got) != 1 {
		t.Errorf("received from %d of %d, want from the one who is not shed", len(got), len(senders))
	}
}

func TestShedOfAClosedSocket(t *testing.T) {
	u := open(t, "127.0.0.1", 0, underlay.Config{})
	u.Close()
	for _, sheds := range [][]underlay.Shed{nil, {{From: u.LocalAddr()}}} {
		if err := u.Shed(sheds); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want net.ErrClosed", err)
		}
	}
}
