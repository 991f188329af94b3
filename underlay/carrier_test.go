package underlay_test

import (
	"context"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/underlay/underlaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// udpEnds opens three UDP carriers at host, which is a loopback address or the wildcard. The others are
// reached by loopback addresses of family 4 or 6.
func udpEnds(host, reach string, cfg underlay.Config) func(t *testing.T) underlaytest.Ends {
	return func(t *testing.T) underlaytest.Ends {
		open := func() (underlay.Carrier, netip.AddrPort) {
			u, err := underlay.ListenUDP(context.Background(), host, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u.Close() })
			return u, netip.AddrPortFrom(netip.MustParseAddr(reach), u.LocalAddr().Port())
		}
		var e underlaytest.Ends
		e.A, e.AddrA = open()
		e.B, e.AddrB = open()
		e.C, e.AddrC = open()
		return e
	}
}

func TestUDP(t *testing.T) {
	for _, body := range []struct {
		name string
		cfg  underlay.Config
	}{
		{"batched", underlay.Config{}},
		{"without GSO", underlay.Config{DisableGSO: true}},
		{"without GRO", underlay.Config{DisableGRO: true}},
		{"without both", underlay.Config{DisableGSO: true, DisableGRO: true}},
		{"portable", underlay.Config{Portable: true}},
	} {
		for _, family := range []struct{ name, host, reach string }{
			{"IPv4", "127.0.0.1:0", "127.0.0.1"},
			{"IPv6", "[::1]:0", "::1"},
			{"dual-stack by IPv4", ":0", "127.0.0.1"},
			{"dual-stack by IPv6", ":0", "::1"},
		} {
			t.Run(body.name+"/"+family.name, func(t *testing.T) {
				needFamily(t, family.reach)
				underlaytest.Run(t, udpEnds(family.host, family.reach, body.cfg))
			})
		}
	}
}

func TestMemory(t *testing.T) {
	for name, coalesce := range map[string]bool{"one datagram a message": false, "coalesced": true} {
		t.Run(name, func(t *testing.T) {
			underlaytest.Run(t, func(t *testing.T) underlaytest.Ends {
				network := underlay.NewMemory(underlay.MemoryConfig{Coalesce: coalesce})
				attach := func(addr netip.AddrPort) underlay.Carrier {
					n, err := network.Attach(addr)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { n.Close() })
					return n
				}
				e := underlaytest.Ends{
					AddrA: netip.MustParseAddrPort("192.0.2.1:5040"),
					AddrB: netip.MustParseAddrPort("[2001:db8::2]:5040"),
					AddrC: netip.MustParseAddrPort("192.0.2.3:5040"),
				}
				e.A, e.B, e.C = attach(e.AddrA), attach(e.AddrB), attach(e.AddrC)
				return e
			})
		})
	}
}
