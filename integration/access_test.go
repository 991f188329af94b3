//go:build linux

package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/net/proxy"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// An access is how programs of a host use the overlay over TCP: as any network, or by SOCKS5.
type access func(ctx context.Context, network, address string) (net.Conn, error)

// byRoute is the access of programs where the kernel has a route into the overlay.
func byRoute(h *lab.Host) access { return h.DialContext }

// bySOCKS is the access of programs beside a rootless peer. The proxy gets names unresolved.
func bySOCKS(h *lab.Host) access {
	d, err := proxy.SOCKS5("tcp", socksAt, nil, dialer{h})
	if err != nil {
		panic(err) // cannot be, of SOCKS5
	}
	return d.(proxy.ContextDialer).DialContext
}

// dialer is a host as package proxy wants it.
type dialer struct{ *lab.Host }

func (d dialer) Dial(network, address string) (net.Conn, error) { return d.Host.Dial(network, address) }

// client returns an HTTP client that keeps no connections.
func (a access) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: a, DisableKeepAlives: true}}
}

// get requests http://HOST/PATH, where host may be an IPv6 address.
func (a access) get(ctx context.Context, host, path string) (*http.Response, error) {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	return resp, nil
}

// download fetches the file of size bytes and compares it with what it should be.
func (a access) download(t *testing.T, host string, size int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*soon)
	defer cancel()
	start := time.Now()
	resp, err := a.get(ctx, host, fmt.Sprintf("/bytes/%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := time.Since(start)
	n, err := io.CopyBuffer(&service.Comparison{}, resp.Body, make([]byte, 256<<10))
	if err != nil || n != size {
		t.Fatalf("downloading from %s: %d of %d bytes in %v: %v", host, n, size, time.Since(start), err)
	}
	t.Logf("%d MB from %s: answer after %v, %.0f Mbit/s", size/1e6, host, first.Round(time.Millisecond), float64(n)*8e-6/(time.Since(start)-first).Seconds())
}

// whoami returns the address that the server at host sees.
func (a access) whoami(ctx context.Context, host string) (string, error) {
	resp, err := a.get(ctx, host, "/whoami")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// conversation is an echo by one connection, some bytes there and back.
func (a access) conversation(ctx context.Context, host string, message []byte) error {
	c, err := a(ctx, "tcp", net.JoinHostPort(host, service.EchoPort))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("waiting for the echo: %w", err)
	}
	if string(got) != string(message) {
		return errors.New("the echo is not what was sent")
	}
	return nil
}

// converse opens n connections at once, holds a conversation on each.
func (a access) converse(t *testing.T, host string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			message := make([]byte, 8000)
			binary.BigEndian.PutUint64(message, uint64(i))
			copy(message[8:], service.Marker)
			errs[i] = a.conversation(ctx, host, message)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%d connections at once to %s: %v", n, host, err)
	}
}

// awaitConversation tries until there is one, and returns how long that took. A test that cannot have
// one within limit ends.
func (a access) awaitConversation(t *testing.T, host string, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), min(3*time.Second, limit))
		err := a.conversation(ctx, host, []byte(service.Marker))
		cancel()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("no conversation with %s within %v: %v", host, limit, err)
		}
		time.Sleep(20 * time.Millisecond) // before the next try
	}
}

// awaitFirst begins a conversation every 20 ms, whatever became of those before, and returns how long it took until the
// first succeeded. So what is measured is the overlay, not the timers of a connection begun too early.
func (a access) awaitFirst(t *testing.T, host string, limit time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	results := make(chan error)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel() // before they are waited for
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		tries.Go(func() {
			err := a.conversation(ctx, host, []byte(service.Marker))
			select {
			case results <- err:
			case <-ctx.Done():
			}
		})
		for waiting := true; waiting; {
			select {
			case err := <-results:
				if err == nil {
					return time.Since(start)
				}
				last = err
			case <-ctx.Done():
				t.Fatalf("no conversation with %s within %v: %v", host, limit, last)
			case <-tick.C:
				waiting = false
			}
		}
	}
}

// echoUDP sends datagrams from h to an echo one after the other, of sizes up to what the overlay carries whole,
// and wants each back. The first may wait for a session.
func echoUDP(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	c, err := h.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 64<<10)
	for i := range 100 {
		want := make([]byte, 60+i*12)
		copy(want, service.Marker)
		binary.BigEndian.PutUint64(want[52:], uint64(i))
		c.SetDeadline(time.Now().Add(soon))
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(got)
		if err != nil {
			t.Fatalf("UDP echo %d by %s, %d bytes: %v", i, address, len(want), err)
		}
		if string(got[:n]) != string(want) {
			t.Fatalf("UDP echo %d by %s: %d bytes that are not the %d sent", i, address, n, len(want))
		}
	}
}

// ping sends echo requests from h, one after the other, and wants an answer to each.
func ping(t *testing.T, h *lab.Host, to string, times int) {
	t.Helper()
	dst := netip.MustParseAddr(to)
	network, any, proto := "ip4:icmp", "0.0.0.0", 1
	var kind, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if dst.Is6() {
		network, any, proto = "ip6:ipv6-icmp", "::", 58
		kind, answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	c := h.ListenPacket(network, any)
	defer c.Close()
	b := make([]byte, 1500)
	for seq := range times {
		echo := &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq, Data: []byte(service.Marker)}
		request, err := (&icmp.Message{Type: kind, Body: echo}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteTo(request, &net.IPAddr{IP: dst.AsSlice()}); err != nil {
			t.Fatalf("ping %s: %v", to, err)
		}
		c.SetReadDeadline(time.Now().Add(soon))
		for answered := false; !answered; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				t.Fatalf("ping %s, number %d: %v", to, seq, err)
			}
			m, err := icmp.ParseMessage(proto, b[:n])
			if err != nil || m.Type != answer || from.String() != to {
				continue // the host's other ICMP
			}
			e, ok := m.Body.(*icmp.Echo)
			answered = ok && e.ID == echo.ID && e.Seq == seq && string(e.Data) == string(echo.Data)
		}
	}
}
