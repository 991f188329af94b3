package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/adit-overlay/adit/packet"
)

func TestTCPConnKeepsContractOfPackageNet(t *testing.T) {
	for _, host := range []string{addrB, addrB6} {
		t.Run(host, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				p := newPair(t, pairOption{})
				c1, c2 = join(t, p, host)
				return c1, c2, p.stop, nil
			})
		})
	}
}

// transfer sends n bytes one way and fails unless the same come out.
func transfer(t *testing.T, near, far net.Conn, n int64) {
	t.Helper()
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		src := io.LimitReader(rand.New(rand.NewSource(n)), n)
		if _, err := io.CopyBuffer(struct{ io.Writer }{near}, io.TeeReader(src, sent), make([]byte, 256<<10)); err != nil {
			t.Errorf("send: %v", err)
		}
		near.(interface{ CloseWrite() error }).CloseWrite()
	})
	m, err := io.CopyBuffer(got, struct{ io.Reader }{far}, make([]byte, 256<<10))
	sending.Wait()
	if m != n || err != nil {
		t.Fatalf("received %d of %d bytes, %v", m, n, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Fatal("received other bytes than were sent")
	}
}

func TestLongTransferArrivesWhole(t *testing.T) {
	for _, host := range []string{addrB, addrB6} {
		t.Run(host, func(t *testing.T) {
			var supers, partial atomic.Int64
			p := newPair(t, pairOption{alter: func(toB bool, b []byte, o *packet.Offload) bool {
				if o.Super() {
					supers.Add(1)
					if payload := len(b) - o.Header; payload <= o.Segment || payload > 45*o.Segment {
						t.Errorf("super-packet of %d bytes in segments of %d", payload, o.Segment)
					}
				}
				if o.Checksum == packet.ChecksumPartial {
					partial.Add(1)
				}
				return true
			}})
			near, far := join(t, p, host)
			transfer(t, near, far, 100<<20)
			if supers.Load() == 0 || partial.Load() == 0 {
				t.Errorf("%d super-packets, %d partial checksums", supers.Load(), partial.Load())
			}
		})
	}
}

// A full super-packet is cut into segments that are all full, as many as may be: what makes it needs nothing
// of its own for a last one that is short.
func TestFullSuperPacketsAreWholeSegments(t *testing.T) {
	for _, c := range []struct {
		mtu, segments int
		want          int // of them
	}{
		{0, 0, DefaultGSOMaxSegments}, {1280, 0, DefaultGSOMaxSegments}, {1400, 7, 7}, {1400, 64, 49}, {9000, 64, 7},
		{32000, 64, 2},
	} {
		for _, host := range []string{addrB, addrB6} {
			t.Run(fmt.Sprintf("MTU %d, %d segments, %s", c.mtu, c.segments, host), func(t *testing.T) {
				set := func(cfg *Config) { cfg.MTU, cfg.GSOMaxSegments = c.mtu, c.segments }
				most, whole := 0, false // only the pump to b touches them
				p := newPair(t, pairOption{a: set, b: set, alter: func(toB bool, b []byte, o *packet.Offload) bool {
					if toB && o.Super() {
						h, err := packet.Parse(b)
						tcp := header.TCP(b[o.Transport:])
						if err != nil || h.Transport != o.Transport || !tcp.ParsedOptions().TS {
							t.Errorf("no segment with timestamps: %v, %+v", err, o)
						}
						payload := len(b) - o.Header
						switch n := (payload + o.Segment - 1) / o.Segment; {
						case n > most:
							most, whole = n, payload%o.Segment == 0
						case n == most && payload%o.Segment == 0:
							whole = true // a shorter one may be the end of a write
						}
					}
					return true
				}})
				near, far := join(t, p, host)
				transfer(t, near, far, 8<<20)
				p.stop()
				if most != c.want || !whole {
					t.Errorf("the largest have %d segments, want %d; whole: %v", most, c.want, whole)
				}
			})
		}
	}
}

func TestTransferSurvivesLoss(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	var mu sync.Mutex
	p := newPair(t, pairOption{alter: func(bool, []byte, *packet.Offload) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.Intn(100) != 0
	}})
	near, far := join(t, p, addrB)
	transfer(t, near, far, 4<<20)
}

func TestHalfCloseThenLargeReply(t *testing.T) {
	p := newPair(t, pairOption{})
	near, far := join(t, p, addrB)
	near.Write([]byte("request"))
	near.(*tcpConn).CloseWrite()
	if got, err := io.ReadAll(far); string(got) != "request" || err != nil {
		t.Fatalf("far end read %q, %v", got, err)
	}
	transfer(t, far, near, 10<<20)
	if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v, want EPIPE", err)
	}
}

func TestErrorsAreThoseOfPackageNet(t *testing.T) {
	p := newPair(t, pairOption{})
	l := listen(t, p.b, "tcp", addrB+":80")

	for _, c := range []struct {
		name string
		call func() error
		want error
	}{
		{"dial a closed port", func() error { _, err := p.a.Dial("tcp", addrB+":81"); return err }, syscall.ECONNREFUSED},
		{"dial a closed port of IPv6", func() error { _, err := p.a.Dial("tcp", net.JoinHostPort(addrB6, "81")); return err }, syscall.ECONNREFUSED},
		{"dial an own closed port", func() error { _, err := p.a.Dial("tcp", addrA+":81"); return err }, syscall.ECONNREFUSED},
		{"listen twice", func() error { _, err := p.b.Listen("tcp", addrB+":80"); return err }, syscall.EADDRINUSE},
		{"listen on another's address", func() error { _, err := p.b.Listen("tcp", addrA+":80"); return err }, syscall.EADDRNOTAVAIL},
		{"listen for packets on another's address", func() error { _, err := p.b.ListenPacket("udp", addrA+":80"); return err }, syscall.EADDRNOTAVAIL},
		{"dial with a past deadline", func() error {
			ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
			defer cancel()
			_, err := p.a.DialContext(ctx, "tcp", addrB+":80")
			return err
		}, os.ErrDeadlineExceeded},
		{"dial cancelled", func() error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err := p.a.DialContext(ctx, "tcp", addrB+":80")
			return err
		}, context.Canceled},
		{"unknown network", func() error { _, err := p.a.Dial("ip", addrB); return err }, net.UnknownNetworkError("ip")},
		{"accept after close", func() error { l.Close(); _, err := l.Accept(); return err }, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.call()
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Errorf("%T is no *net.OpError", err)
			}
		})
	}
}

func TestConnErrors(t *testing.T) {
	p := newPair(t, pairOption{})
	near, far := join(t, p, addrB)
	near.SetReadDeadline(time.Unix(1, 0))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after the deadline: %v", err)
	}
	near.SetReadDeadline(time.Time{})
	far.(*tcpConn).reset()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v, want ECONNRESET", err)
	}
	near.Close()

	near, far = join(t, p, addrB)
	far.(*tcpConn).CloseWrite()
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read at the end: %v", err)
	}
	far.(*tcpConn).reset()
	err := error(nil)
	for err == nil {
		_, err = near.Write(make([]byte, 1<<10))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after a reset of what was half closed: %v, want EPIPE", err)
	}
	near.Close()
	for name, err := range map[string]error{
		"read":  second(near.Read(nil)),
		"write": second(near.Write(nil)),
		"close": near.Close(),
		"set":   near.SetDeadline(time.Time{}),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func second(_ int, err error) error { return err }

func TestWildcardListensOnAllAddresses(t *testing.T) {
	for _, c := range []struct {
		network, host string
		reach         []string
		refuse        []string
	}{
		{"tcp", "", []string{addrB, addrB6}, nil},
		{"tcp", "::", []string{addrB, addrB6}, nil},
		{"tcp", "0.0.0.0", []string{addrB}, []string{addrB6}},
		{"tcp4", "", []string{addrB}, []string{addrB6}},
		{"tcp6", "", []string{addrB6}, []string{addrB}},
	} {
		t.Run(c.network+" "+c.host, func(t *testing.T) {
			p := newPair(t, pairOption{})
			l := listen(t, p.b, c.network, net.JoinHostPort(c.host, "80"))
			for _, host := range c.reach {
				near := dial(t, p.a, "tcp", net.JoinHostPort(host, "80"))
				far, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if far.LocalAddr().String() != near.RemoteAddr().String() {
					t.Errorf("accepted at %v, dialled %v", far.LocalAddr(), near.RemoteAddr())
				}
				far.Close()
			}
			for _, host := range c.refuse {
				if _, err := p.a.Dial("tcp", net.JoinHostPort(host, "80")); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("dial %s: %v", host, err)
				}
			}
		})
	}
}

func TestOwnAddressIsReached(t *testing.T) {
	p := newPair(t, pairOption{})
	l := listen(t, p.a, "tcp", ":80")
	for _, host := range []string{addrA, addrA6, ""} {
		near := dial(t, p.a, "tcp", net.JoinHostPort(host, "80"))
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		transfer(t, near, far, 1<<20)
		far.Close()
	}
}
