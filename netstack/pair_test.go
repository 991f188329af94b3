package netstack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/adit-overlay/adit/packet"
)

// Overlay addresses of the two ends of a pair.
const (
	addrA, addrB   = "10.9.0.2", "10.9.0.3"
	addrA6, addrB6 = "fd00:9::2", "fd00:9::3"
)

// A pair is two stacks back to back, joined by pumps that carry packets and super-packets whole.
type pair struct {
	a, b *Stack
	stop func() // closes both and waits for the pumps
}

type pairOption struct {
	a, b      func(*Config)
	clock     tcpip.Clock                                      // of both; nil is the real one
	alter     func(toB bool, p []byte, o *packet.Offload) bool // false drops
	delivered func(toB bool, p []byte)                         // after Deliver has returned
}

func newPair(t testing.TB, opt pairOption) *pair {
	t.Helper()
	mk := func(v4, v6 string, set func(*Config)) *Stack {
		cfg := Config{
			Addresses: []netip.Prefix{netip.MustParsePrefix(v4 + "/24"), netip.MustParsePrefix(v6 + "/64")},
			clock:     opt.clock,
		}
		if set != nil {
			set(&cfg)
		}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	p := &pair{a: mk(addrA, addrA6, opt.a), b: mk(addrB, addrB6, opt.b)}
	var pumps sync.WaitGroup
	pump := func(from, to *Stack, toB bool) {
		var batch packet.Batch
		var o packet.Offload
		in := to.Inlet()
		for {
			if err := from.Read(&batch); err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
				return
			}
			for i := range batch.Packets {
				pkt := &batch.Packets[i]
				b := in.Lend(pkt.Len())[:0]
				for _, piece := range pkt.Pieces {
					b = append(b, piece...)
				}
				o = pkt.Offload
				if opt.alter != nil && !opt.alter(toB, b, &o) {
					continue
				}
				if opt.delivered == nil {
					in.Deliver(len(b), o)
					continue
				}
				seen := bytes.Clone(b) // Deliver gives b away
				in.Deliver(len(b), o)
				opt.delivered(toB, seen)
			}
		}
	}
	pumps.Go(func() { pump(p.a, p.b, true) })
	pumps.Go(func() { pump(p.b, p.a, false) })
	p.stop = sync.OnceFunc(func() {
		p.b.Close()
		p.a.Close()
		pumps.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// dial connects from s, and fails the test if it cannot. Like everything here that waits, it has no limit of
// its own: what never comes ends with the test's own, which shows who waits.
func dial(t testing.TB, s *Stack, network, address string) net.Conn {
	t.Helper()
	c, err := s.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func listen(t testing.TB, s *Stack, network, address string) net.Listener {
	t.Helper()
	l, err := s.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// join returns both ends of a TCP connection from a to b.
func join(t testing.TB, p *pair, host string) (near, far net.Conn) {
	t.Helper()
	l := listen(t, p.b, "tcp", net.JoinHostPort(host, "0"))
	defer l.Close()
	near = dial(t, p.a, "tcp", l.Addr().String())
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}
