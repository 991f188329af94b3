package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/adit-overlay/adit/peer"
)

// onBoth runs a test on a network in memory and on loopback.
func onBoth(t *testing.T, f func(t *testing.T, g ground)) {
	for _, g := range []ground{inMemory, onLoopback} {
		t.Run(string(g), func(t *testing.T) { f(t, g) })
	}
}

// hosts are what the second member of a lab can be called.
var hosts = []string{"10.9.0.3", "fd00:9::3", "web.adit", "web", "WEB.Adit", "web.adit.", "web."}

func TestTCPByRelay(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		l := newLab(t, g, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		pages := listen(t, web, ":80")
		for _, host := range hosts {
			near := dial(t, laptop, "tcp", net.JoinHostPort(host, "80"))
			far, err := pages.Accept()
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, near, far, "to "+host)
			if near.LocalAddr().String() != far.RemoteAddr().String() || near.RemoteAddr().String() != far.LocalAddr().String() {
				t.Errorf("%s: ends %v-%v and %v-%v", host, near.LocalAddr(), near.RemoteAddr(), far.RemoteAddr(), far.LocalAddr())
			}
			far.Close()
		}
		if st := l.relay.Status(); st.Relay.Datagrams == 0 {
			t.Error("nothing went by the relay")
		}
	})
}

func TestUDPByRelay(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		l := newLab(t, g, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		service, err := web.ListenPacket("udp", ":53")
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		for _, host := range hosts {
			question := dial(t, laptop, "udp", net.JoinHostPort(host, "53"))
			for _, size := range []int{1, 1300, 9000} { // the last in fragments
				b := bytes.Repeat([]byte{byte(size)}, size)
				deadline := time.Now().Add(time.Minute)
				question.SetDeadline(deadline)
				service.SetDeadline(deadline)
				if _, err := question.Write(b); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 10000)
				n, from, err := service.ReadFrom(got)
				if err != nil || !bytes.Equal(got[:n], b) {
					t.Fatalf("%s: %d bytes, %v; want %d", host, n, err, size)
				}
				if _, err := service.WriteTo(got[:n], from); err != nil {
					t.Fatal(err)
				}
				if n, err = question.Read(got); err != nil || !bytes.Equal(got[:n], b) {
					t.Fatalf("%s: answer of %d bytes, %v; want %d", host, n, err, size)
				}
			}
		}
	})
}

func TestHTTPByRelay(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		l := newLab(t, g, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		serve(t, listen(t, web, ":80"), "a page")
		for _, host := range []string{"10.9.0.3", "[fd00:9::3]", "web.adit", "web"} {
			wantPage(t, laptop.HTTPClient(), "http://"+host+"/", "a page")
		}
	})
}

// serve answers every request on l with text, until the test ends.
func serve(t testing.TB, l net.Listener, text string) {
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
}

func wantPage(t testing.TB, c *http.Client, url, want string) {
	t.Helper()
	req, err := http.NewRequestWithContext(soon(t), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != want || err != nil {
		t.Fatalf("%s: %q, %v; want %q", url, got, err, want)
	}
}

func TestThreePeersReachEachOther(t *testing.T) {
	l := newLab(t, inMemory, "a", "b", "c")
	peers := l.startOnline("a", "b", "c")
	for i, from := range peers {
		for j, to := range peers { // to itself as well
			near, far := join(t, from, to, addresses(j)[i%2].Addr().String())
			exchange(t, near, far, fmt.Sprintf("from %d to %d", i, j))
		}
	}
}

func TestOwnNameIsOwnAddress(t *testing.T) {
	l := newLab(t, inMemory, "laptop")
	laptop := l.start("laptop", func(c *peer.Config) { c.Relays = nil })
	got, err := laptop.LookupHost(t.Context(), "Laptop.adit")
	if err != nil || len(got) != 2 || got[0] != addresses(0)[0].Addr() || got[1] != addresses(0)[1].Addr() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestNetworkOfDialChoosesFamily(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	laptop, web := l.pair("laptop", "web")
	pages := listen(t, web, ":80")
	for network, want := range map[string]string{"tcp4": "10.9.0.3:80", "tcp6": "[fd00:9::3]:80", "udp4": "10.9.0.3:80", "udp6": "[fd00:9::3]:80"} {
		if c := dial(t, laptop, network, "web.adit:80"); c.RemoteAddr().String() != want {
			t.Errorf("%s: %v, want %s", network, c.RemoteAddr(), want)
		}
	}
	pages.Close()
}

// Reasons why a dial fails, and how soon: unlike an address nobody answers at, they are known.
func TestDialFails(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		l := newLab(t, g, "laptop", "web", "absent")
		laptop, web := l.pair("laptop", "web")
		if err := errors.Join(laptop.Ready(soon(t)), web.Ready(soon(t))); err != nil {
			t.Fatal(err)
		}
		notFound := func(err error) bool {
			var dns *net.DNSError
			return errors.As(err, &dns) && dns.IsNotFound
		}
		is := func(errs ...error) func(error) bool {
			return func(err error) bool {
				return slices.ContainsFunc(errs, func(e error) bool { return errors.Is(err, e) })
			}
		}
		nobody := is(syscall.EHOSTUNREACH, syscall.ENETUNREACH)
		unknownNetwork := func(err error) bool { var e net.UnknownNetworkError; return errors.As(err, &e) }
		addrError := func(err error) bool { var e *net.AddrError; return errors.As(err, &e) }
		for _, test := range []struct {
			network, address string
			ok               func(error) bool
		}{
			{"tcp", "10.9.0.3:81", is(syscall.ECONNREFUSED)},
			{"tcp", "[fd00:9::3]:81", is(syscall.ECONNREFUSED)},
			{"tcp", "web.adit:81", is(syscall.ECONNREFUSED)},
			{"tcp", "10.9.0.77:80", nobody},
			{"tcp", "[fd00:9::77]:80", nobody},
			{"tcp", "192.0.2.1:80", nobody},
			{"tcp", "10.9.0.4:80", nobody},
			{"tcp", "10.9.0.4:80", nobody}, // again, with the handshake under way
			{"tcp", "[fd00:9::4]:80", nobody},
			{"tcp", "absent.adit:80", nobody},
			{"tcp", "unknown.adit:80", notFound},
			{"tcp", "Unknown.ADIT.:80", notFound},
			{"tcp", "no-name-.adit:80", notFound},
			{"tcp", ".adit:80", notFound},
			{"tcp", "two.labels.adit:80", notFound},
			{"tcp4", "[fd00:9::3]:80", addrError},
			{"tcp6", "10.9.0.3:80", addrError},
			{"tcp", "10.9.0.3", addrError},
			{"tcp", "web.adit", addrError},
			{"", "10.9.0.3:80", unknownNetwork},
			{"ip", "unknown.adit:80", unknownNetwork},
			{"tcp", "web.adit:no-such-port", func(err error) bool { return err != nil }},
			{"tcp", "10.9.0.3:70000", func(err error) bool { return err != nil }},
		} {
			start := time.Now()
			c, err := laptop.DialContext(soon(t), test.network, test.address)
			if err == nil {
				c.Close()
			}
			var op *net.OpError
			if !test.ok(err) || !errors.As(err, &op) || op.Op != "dial" || op.Net != test.network {
				t.Errorf("%s %s: %v (%T) after %v", test.network, test.address, err, err, time.Since(start))
			}
		}
	})
}

func TestDialWithoutRelayFailsAtOnce(t *testing.T) {
	l := newLab(t, inMemory, "laptop")
	laptop := l.start("laptop", func(c *peer.Config) { c.Relays = nil })
	if _, err := laptop.DialContext(soon(t), "tcp", "10.9.0.77:80"); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
		t.Error(err)
	}
	var dns *net.DNSError
	if _, err := laptop.DialContext(soon(t), "tcp", "web.adit:80"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Error(err)
	}
}

// The relay does not answer: that is no word on whether the name exists.
func TestLookupWithoutAnswerIsTemporary(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	laptop := l.start("laptop")
	l.relay.Close()
	var dns *net.DNSError
	if _, err := laptop.DialContext(soon(t), "tcp", "web.adit:80"); !errors.As(err, &dns) || dns.IsNotFound || !dns.IsTemporary {
		t.Error(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	laptop := l.start("laptop")
	l.relay.Close() // now nobody answers anything
	for _, address := range []string{"10.9.0.3:80", "web.adit:80", "web:80"} {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := laptop.DialContext(ctx, "tcp", address)
			failed <- err
		}()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", address, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := laptop.DialContext(ctx, "tcp", address)
		cancel()
		var timeout net.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s, out of time: %v", address, err)
		}
	}
}

// The first SYN leaves before there is a session. Were it lost, a dial would take the second until the
// next one. What was sent tells without a clock: one SYN, and the ACK of its answer.
func TestFirstDialLosesNoPacket(t *testing.T) {
	const clients = 50
	var names []string
	for i := range clients {
		names = append(names, fmt.Sprintf("client-%d", i))
	}
	l := newLab(t, inMemory, append(names, "web")...)
	web := l.startOnline("web")[0]
	pages := listen(t, web, ":80")
	for _, name := range names {
		p := l.start(name)
		dial(t, p, "tcp", net.JoinHostPort(addresses(clients)[0].Addr().String(), "80"))
		if _, err := pages.Accept(); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Status().Remotes {
			if !r.Relay && r.Traffic.SentPackets > 2 { // the ACK may not be out yet
				t.Errorf("%s: %d packets sent for one dial", name, r.Traffic.SentPackets)
			}
		}
		if n := p.Status().Engine.Drops["held"]; n != 0 {
			t.Errorf("%s: %d packets dropped that waited for a session", name, n)
		}
		p.Close()
	}
}

func TestConnKeepsContractOfPackageNet(t *testing.T) {
	for _, host := range []string{"10.9.0.3", "fd00:9::3"} {
		t.Run(host, func(t *testing.T) {
			l := newLab(t, inMemory, "laptop", "web")
			laptop, web := l.pair("laptop", "web")
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = join(t, laptop, web, host)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestHalfCloseThenLongReply(t *testing.T) {
	onBoth(t, func(t *testing.T, g ground) {
		l := newLab(t, g, "laptop", "web")
		laptop, web := l.pair("laptop", "web")
		near, far := join(t, laptop, web, "10.9.0.3")
		if err := near.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("%d, %v; want the end of the stream", n, err)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			if _, err := far.Write(make([]byte, 8<<20)); err != nil {
				t.Error(err)
			}
			far.Close()
		})
		near.SetDeadline(time.Now().Add(30 * time.Second))
		if n, err := io.Copy(io.Discard, near); n != 8<<20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		sending.Wait()
	})
}

func TestDeadlineOfConnAndListener(t *testing.T) {
	l := newLab(t, inMemory, "laptop", "web")
	laptop, web := l.pair("laptop", "web")
	near, _ := join(t, laptop, web, "10.9.0.3")
	near.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
