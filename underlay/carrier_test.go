package underlay_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

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

func TestStream(t *testing.T) {
	for _, kind := range []struct {
		name string
		open func(t *testing.T) (a, b net.Conn)
	}{
		{"pipe", func(*testing.T) (a, b net.Conn) { return net.Pipe() }},
		{"TCP", tcpPipe},
		{"TLS", tlsPipe},
	} {
		t.Run(kind.name, func(t *testing.T) {
			underlaytest.Run(t, func(t *testing.T) underlaytest.Ends {
				a, b := kind.open(t)
				e := underlaytest.Ends{
					A: underlay.NewStream(a, underlay.Config{}),
					B: underlay.NewStream(b, underlay.Config{}),
				}
				t.Cleanup(func() {
					e.A.Close()
					e.B.Close()
				})
				return e
			})
		})
	}
}

func tcpPipe(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// tlsPipe does not wait for the handshake, which the carriers' reading and writing does.
func tlsPipe(t *testing.T) (a, b net.Conn) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"b.example"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	a, b = tcpPipe(t)
	a = tls.Client(a, &tls.Config{RootCAs: roots, ServerName: "b.example"})
	b = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}})
	return a, b
}
