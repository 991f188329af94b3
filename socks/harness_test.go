package socks

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryListener gives out ends of net.Pipe, so that servers can be tested in
// fake time.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

func (l *memoryListener) connect(t testing.TB) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
	case <-l.closed:
		t.Fatal("the listener is closed")
	}
	return ours
}

// serve runs s on l until the test or the returned function ends it.
func serve(t testing.TB, s *Server, l net.Listener) (stop func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v, want net.ErrClosed", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// serveMemory serves s on a listener in memory.
func serveMemory(t testing.TB, s *Server) (l *memoryListener, stop func()) {
	t.Helper()
	l = newMemoryListener()
	return l, serve(t, s, l)
}

// serveTCP serves s on loopback and returns its address.
func serveTCP(t testing.TB, s *Server) string {
	t.Helper()
	l := listenTCP(t)
	serve(t, s, l)
	return l.Addr().String()
}

func listenTCP(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dialTCP dials and bounds what a broken server could hang.
func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// dialTo ignores the destination and dials addr.
func dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func dialError(err error) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return nil, err }
}

// dialEcho is a dial function whose connections return what they are sent.
func dialEcho(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		io.Copy(theirs, theirs)
	}()
	return ours, nil
}

// dialog is a client written down: bytes as hex or, in single quotes, as text.
type dialog struct {
	t    testing.TB
	conn net.Conn
}

func (d dialog) send(text string) {
	d.t.Helper()
	if _, err := d.conn.Write(unwrite(d.t, text)); err != nil {
		d.t.Fatalf("send %s: %v", text, err)
	}
}

func (d dialog) want(text string) {
	d.t.Helper()
	want := unwrite(d.t, text)
	got := make([]byte, len(want))
	n, err := io.ReadFull(d.conn, got)
	if err != nil || !bytes.Equal(got, want) {
		d.t.Fatalf("got % x (%v), want % x", got[:n], err, want)
	}
}

func (d dialog) wantClosed() {
	d.t.Helper()
	rest, err := io.ReadAll(d.conn)
	if err != nil || len(rest) > 0 {
		d.t.Fatalf("got % x and %v, want the end of the stream", rest, err)
	}
}

// unwrite reads "05 01 'text' 00".
func unwrite(t testing.TB, text string) []byte {
	t.Helper()
	var b []byte
	for i, part := range strings.Split(text, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		raw, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		b = append(b, raw...)
	}
	return b
}
