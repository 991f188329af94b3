package peer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// linkable are two peers that know each other and have no carrier: a at 10.9.0.2, b at 10.9.0.3.
func linkable(t testing.TB, alterA, alterB func(*peer.Config)) (a, b *peer.Peer) {
	t.Helper()
	keys := [2]wire.PrivateKey{newKey(t), newKey(t)}
	start := func(i int, name, other string, alter func(*peer.Config)) *peer.Peer {
		cfg := peer.Config{NoUDP: true, Peer: config.Peer{
			Name: name, Mode: config.ModeNetstack, PrivateKey: keys[i], Addresses: addresses(i),
			Peers: []config.Remote{{Name: other, PublicKey: keys[1-i].Public(), AllowedIPs: single(addresses(1 - i))}},
		}}
		if alter != nil {
			alter(&cfg)
		}
		return startPeer(t, cfg)
	}
	return start(0, "a", "b", alterA), start(1, "b", "a", alterB)
}

// pipe is a connection in memory.
func pipe(t testing.TB) (near, far net.Conn) {
	near, far = net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// tlsPipe is a pipe with TLS in it, by a certificate made for the purpose.
func tlsPipe(t testing.TB) (near, far net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"relay.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	a, b := pipe(t)
	return tls.Client(a, &tls.Config{RootCAs: pool, ServerName: "relay.example"}),
		tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
}

// tcpPipe is a TCP connection on loopback.
func tcpPipe(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func link(t testing.TB, a interface{ Link(net.Conn) error }, near net.Conn, b interface{ Link(net.Conn) error }, far net.Conn) {
	t.Helper()
	if err := a.Link(near); err != nil {
		t.Fatal(err)
	}
	if err := b.Link(far); err != nil {
		t.Fatal(err)
	}
}

var connections = map[string]func(testing.TB) (near, far net.Conn){"pipe": pipe, "TLS": tlsPipe, "TCP": tcpPipe}

func TestLinkCarriesHTTP(t *testing.T) {
	for name, connect := range connections {
		t.Run(name, func(t *testing.T) {
			a, b := linkable(t, nil, nil)
			near, far := connect(t)
			link(t, a, near, b, far)
			serve(t, listen(t, b, ":80"), "from b")
			serve(t, listen(t, a, ":80"), "from a")
			wantPage(t, a.HTTPClient(), "http://10.9.0.3/", "from b")
			wantPage(t, b.HTTPClient(), "http://[fd00:9::2]/", "from a")
			if err := a.Ready(soon(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLinkCarriesBulk(t *testing.T) {
	for name, connect := range connections {
		t.Run(name, func(t *testing.T) {
			a, b := linkable(t, nil, nil)
			near, far := connect(t)
			link(t, a, near, b, far)
			from, to := join(t, a, b, "10.9.0.3")
			var sending sync.WaitGroup
			sending.Go(func() {
				if _, err := from.Write(make([]byte, 16<<20)); err != nil {
					t.Error(err)
				}
				from.Close()
			})
			to.SetDeadline(time.Now().Add(60 * time.Second))
			if n, err := io.Copy(io.Discard, to); n != 16<<20 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			sending.Wait()
		})
	}
}

// An address that only b's side of the link has: b opens the network to a, which sends it there.
func TestLinkReachesAdvertisedNetwork(t *testing.T) {
	intranet := netip.MustParsePrefix("192.0.2.0/24")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "of "+r.Host) }))
	defer server.Close()
	for name, connect := range connections {
		t.Run(name, func(t *testing.T) {
			a, b := linkable(t,
				func(c *peer.Config) { c.Peers[0].AllowedIPs = append(c.Peers[0].AllowedIPs, intranet) },
				func(c *peer.Config) {
					c.Advertise = []netip.Prefix{intranet}
					c.Host = netstack.Host{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
						if network != "tcp" || address != "192.0.2.80:80" {
							t.Errorf("b dialled %s %s", network, address)
						}
						return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
					}}
				})
			near, far := connect(t)
			link(t, a, near, b, far)
			wantPage(t, a.HTTPClient(), "http://192.0.2.80/", "of 192.0.2.80")
		})
	}
}

// Members whose only way to each other is a connection of each to a relay that has no socket itself.
func TestLinksToRelay(t *testing.T) {
	for name, connect := range connections {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, inMemory, "laptop", "web")
			start := func(name string) *peer.Peer {
				p := l.start(name, func(c *peer.Config) {
					c.Carriers[0].Close()
					c.Carriers, c.Relays[0].Endpoint = nil, ""
				})
				near, far := connect(t)
				link(t, p, near, l.relay, far)
				return p
			}
			laptop, web := start("laptop"), start("web")
			if err := web.Ready(soon(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := web.LookupHost(soon(t), "laptop.adit"); err != nil {
				t.Fatal(err)
			}
			serve(t, listen(t, web, ":80"), "a page")
			wantPage(t, laptop.HTTPClient(), "http://web.adit/", "a page")
			if n := l.relay.Status().Relay.Datagrams; n == 0 {
				t.Error("nothing went by the relay")
			}
		})
	}
}

// The same with carriers given at the start.
func TestStreamsAsCarriers(t *testing.T) {
	near, far := pipe(t)
	relayKey, key := newKey(t), newKey(t)
	r, err := peer.StartRelay(t.Context(), peer.RelayConfig{
		NoUDP: true, Carriers: []underlay.Carrier{underlay.NewStream(far, underlay.Config{})},
		Relay: config.Relay{PrivateKey: relayKey, Members: []config.Member{
			{Name: "laptop", PublicKey: key.Public(), AllowedIPs: single(addresses(0))},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startPeer(t, peer.Config{
		NoUDP: true, Carriers: []underlay.Carrier{underlay.NewStream(near, underlay.Config{})},
		Peer: config.Peer{
			Mode: config.ModeNetstack, PrivateKey: key, Addresses: addresses(0),
			Relays: []config.RelayEndpoint{{PublicKey: relayKey.Public()}},
		},
	})
	if err := p.Ready(soon(t)); err != nil {
		t.Error(err)
	}
}

// A link that is lost, by either end, and made again: what was connected inside goes on.
func TestConnectionsOutliveLink(t *testing.T) {
	a, b := linkable(t, nil, nil)
	wireA, wireB := pipe(t)
	link(t, a, wireA, b, wireB)
	near, far := join(t, a, b, "10.9.0.3")
	exchange(t, near, far, "by the first link")
	for _, lost := range []string{"at the near end", "at the far end"} {
		if lost == "at the near end" {
			wireA.Close()
		} else {
			wireB.Close()
		}
		// Both ends are dead before the next.
		for _, c := range []net.Conn{wireA, wireB} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Fatal("read of a connection that is lost")
			}
		}
		// What is written meanwhile waits.
		if _, err := near.Write([]byte("meanwhile ")); err != nil {
			t.Fatal(err)
		}
		wireA, wireB = pipe(t)
		link(t, a, wireA, b, wireB)
		b := make([]byte, len("meanwhile "))
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "meanwhile " {
			t.Fatalf("lost %s: %q, %v", lost, b, err)
		}
		exchange(t, near, far, "link lost "+lost)
	}
}

func TestLinkAfterClose(t *testing.T) {
	a, _ := linkable(t, nil, nil)
	a.Close()
	near, far := pipe(t)
	wantClosed(t, "Link", a.Link(near))
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is left open: %v", err)
	}
}

// What comes by a link from somebody else than configured is not answered, and harms nothing.
func TestLinkToStranger(t *testing.T) {
	a, b := linkable(t, nil, nil)
	c, _ := linkable(t, nil, nil) // other keys
	near, far := pipe(t)
	link(t, a, near, c, far)
	wireA, wireB := pipe(t)
	link(t, a, wireA, b, wireB)
	serve(t, listen(t, b, ":80"), "from b")
	wantPage(t, a.HTTPClient(), "http://10.9.0.3/", "from b")
	if st := c.Status(); st.Remotes[0].Connected {
		t.Error("a session with a stranger")
	}
	noise, end := pipe(t)
	if err := a.Link(end); err != nil {
		t.Fatal(err)
	}
	noise.SetDeadline(time.Now().Add(time.Minute))
	go io.Copy(io.Discard, noise)
	noise.Write([]byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"))
	noise.Close()
	wantPage(t, a.HTTPClient(), "http://10.9.0.3/", "from b")
}
