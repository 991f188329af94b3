package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A testSocket is one of a group without the system.
type testSocket chan struct{}

func (s testSocket) Close() error { close(s); return nil }

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group[testSocket, int]{sockets: []testSocket{make(testSocket), make(testSocket)}}
		var ended atomic.Int64
		g.start(func(s testSocket) {
			<-s
			time.Sleep(time.Second) // Close has to wait for this
			ended.Add(1)
			if g.offer(0) {
				t.Error("offer succeeded after Close")
			}
		})
		want := func(call func() (int, error), wantN int, wantErr error) {
			t.Helper()
			if n, err := call(); n != wantN || err != wantErr {
				t.Errorf("took %d, %v; want %d, %v", n, err, wantN, wantErr)
			}
		}
		// waiting begins to take, and returns what takes the result.
		waiting := func() func() (int, error) {
			var n int
			var err error
			done := make(chan struct{})
			go func() { n, err = g.take(); close(done) }()
			synctest.Wait()
			return func() (int, error) { <-done; return n, err }
		}

		result := waiting()
		if !g.offer(7) {
			t.Error("offer failed")
		}
		want(result, 7, nil)

		result = waiting()
		g.setDeadline(time.Now().Add(time.Hour))
		begin := time.Now()
		want(result, 0, os.ErrDeadlineExceeded)
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("the deadline took %v", took)
		}
		offered := make(chan bool)
		go func() { offered <- g.offer(8) }()
		synctest.Wait()
		for range 100 { // so that chance would not help
			want(g.take, 0, os.ErrDeadlineExceeded)
		}
		g.setDeadline(time.Now().Add(time.Hour))
		want(g.take, 8, nil)
		if !<-offered {
			t.Error("offer failed")
		}

		result = waiting()
		go func() { offered <- g.offer(9) }()
		want(result, 9, nil)
		<-offered
		result = waiting()
		if err := g.close(); err != nil || ended.Load() != 2 {
			t.Errorf("close: %v, with %d of 2 goroutines ended", err, ended.Load())
		}
		want(result, 0, net.ErrClosed)
		g.deadline.set(time.Unix(1, 0))
		for range 100 {
			want(g.take, 0, net.ErrClosed)
		}
		if err := g.close(); err != net.ErrClosed {
			t.Errorf("second close: %v", err)
		}
	})
}

// A waiting Accept or ReadFrom is woken by Close and by a deadline that is moved.
func TestGroupIsWoken(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	type socket struct {
		wait, close func() error
		deadline    func(time.Time) error
	}
	open := map[string]func(t *testing.T) socket{
		"Accept": func(t *testing.T) socket {
			l := h.listenTCP(t, "tcp", ":0").(*hostListener)
			return socket{func() error { _, err := l.Accept(); return err }, l.Close, l.SetDeadline}
		},
		"ReadFrom": func(t *testing.T) socket {
			c := h.listenUDP(t, "udp", ":0")
			return socket{func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }, c.Close, c.SetDeadline}
		},
		"ReadFrom, by the read deadline": func(t *testing.T) socket {
			c := h.listenUDP(t, "udp", ":0")
			return socket{func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }, c.Close, c.SetReadDeadline}
		},
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			woken := make(chan error)
			wait := func() { woken <- s.wait() }
			want := func(want error) {
				t.Helper()
				err := <-woken
				if !as[*net.OpError](err) || !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() != (want == os.ErrDeadlineExceeded) {
					t.Errorf("Timeout() of %v", err)
				}
			}
			go wait()
			s.deadline(time.Unix(1, 0))
			want(os.ErrDeadlineExceeded)
			go wait() // it has passed already
			want(os.ErrDeadlineExceeded)
			s.deadline(time.Time{})
			go wait()
			go wait()
			if err := s.close(); err != nil {
				t.Error(err)
			}
			want(net.ErrClosed)
			want(net.ErrClosed)
			go wait()
			want(net.ErrClosed)
			for what, err := range map[string]error{"Close": s.close(), "deadline": s.deadline(time.Time{})} {
				if !as[*net.OpError](err) || !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s after Close: %v", what, err)
				}
			}
		})
	}
}

func TestConnectionsNotAcceptedAreClosed(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*hostListener).tcpListener.(*listenerGroup)
	var dialled []net.Conn
	for range 3 {
		for _, host := range []string{ownA, ownB} {
			dialled = append(dialled, h.dial(t, "tcp", net.JoinHostPort(host, portOf(t, l.Addr()))))
		}
	}
	l.Close()
	for _, c := range dialled {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read from a closed listener's connection: %v", err)
		}
	}
}

// The case the test above reaches by luck only: a connection has left the system's queue, and then
// nobody takes it.
func TestConnectionOnTheWayIsClosed(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*hostListener).tcpListener.(*listenerGroup)
	l.closing.Do(func() { close(l.closed) }) // Close has come so far
	for i, host := range []string{ownA, ownB} {
		c := h.dial(t, "tcp", net.JoinHostPort(host, portOf(t, l.Addr())))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		l.sockets[i].Close()
	}
	l.running.Wait()
}

// An error of one listener is the caller's to judge, and no end.
func TestAcceptGoesOnAfterError(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	l := h.listenTCP(t, "tcp", ":0").(*hostListener).tcpListener.(*listenerGroup)
	l.sockets[1].SetDeadline(time.Unix(1, 0))
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want the listener's error", err)
		}
	}
	l.sockets[1].SetDeadline(time.Time{})
	near := h.dial(t, "tcp", net.JoinHostPort(ownB, portOf(t, l.Addr())))
	for {
		far, err := l.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // it was on its way
		}
		if err != nil {
			t.Fatal(err)
		}
		if far.RemoteAddr().String() != near.LocalAddr().String() {
			t.Errorf("accepted %v, want %v", far.RemoteAddr(), near.LocalAddr())
		}
		far.Close()
		return
	}
}

func TestGroupDatagramErrors(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	c := h.listenUDP(t, "udp", ":0").(*hostPacketGroup)
	to := netip.MustParseAddrPort(ownA + ":9")
	wantWrite := func(n int, err error, want error) {
		t.Helper()
		if n != 0 || !as[*net.OpError](err) || !errors.Is(err, want) {
			t.Errorf("%d, %v, want %v", n, err, want)
		}
	}
	write := func(address string) (int, error) {
		return c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(address))
	}
	n, err := c.WriteTo([]byte("x"), &net.IPAddr{})
	wantWrite(n, err, syscall.EINVAL)
	n, err = c.WriteTo([]byte("x"), (*net.UDPAddr)(nil))
	wantWrite(n, err, syscall.EINVAL)
	n, err = c.WriteTo([]byte("x"), &net.UDPAddr{Port: 9})
	wantWrite(n, err, syscall.EINVAL)
	n, err = write(ownA + ":0")
	wantWrite(n, err, syscall.EINVAL)
	n, err = write("[fe80::1%lo]:9")
	wantWrite(n, err, syscall.EINVAL)
	n, err = write("[::1]:9")
	wantWrite(n, err, syscall.ENETUNREACH)
	n, err = c.WriteToUDPAddrPort(make([]byte, maxDatagram), to)
	wantWrite(n, err, syscall.EMSGSIZE)

	c.SetWriteDeadline(time.Unix(1, 0))
	for _, a := range []string{ownA, ownB} {
		n, err = write(a + ":9")
		wantWrite(n, err, os.ErrDeadlineExceeded)
	}
	c.SetDeadline(time.Time{})
	if _, err := write(ownA + ":9"); err != nil {
		t.Errorf("write after the deadline was taken away: %v", err)
	}

	c.Close()
	for _, a := range []string{ownA + ":9", "[::1]:9"} {
		n, err = write(a)
		wantWrite(n, err, net.ErrClosed)
	}
	if err := c.SetWriteDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetWriteDeadline after Close: %v", err)
	}
}

func TestGroupCutsDatagrams(t *testing.T) {
	h := hostNet(t, ownA, ownB)
	c := h.listenUDP(t, "udp", ":0")
	near := h.dial(t, "udp", net.JoinHostPort(ownB, portOf(t, c.LocalAddr())))
	near.Write([]byte("much too long"))
	near.Write([]byte("next"))
	b := make([]byte, 4)
	for _, want := range []string{"much", "next"} {
		if n, _, err := c.ReadFrom(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v, want %q", b[:n], err, want)
		}
	}
}

// A lent buffer must not be written before it has been copied; the race detector sees it too.
func TestGroupKeepsDatagramsApart(t *testing.T) {
	h := hostNet(t, ownA, ownB, own6)
	c := h.listenUDP(t, "udp", ":0")
	const rounds, readers = 50, 3
	for i, host := range []string{ownA, ownB, own6} {
		near := h.dial(t, "udp", net.JoinHostPort(host, portOf(t, c.LocalAddr())))
		go func() {
			for range rounds {
				near.Write(bytes.Repeat([]byte{byte('a' + i)}, 1000))
			}
		}()
	}
	done := make(chan error)
	for range readers {
		go func() {
			b := make([]byte, 2000)
			for range rounds {
				n, _, err := c.ReadFrom(b)
				if err == nil && (n != 1000 || bytes.Count(b[:n], b[:1]) != n) {
					err = fmt.Errorf("read a mixture: %q", b[:n])
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSender(t *testing.T) {
	g := &packetGroup{}
	for _, a := range []string{"10.9.0.2/16", "fd00:9::2/64", "10.9.1.2/24", "10.8.0.2/24", "fd00:8::2/64"} {
		g.own = append(g.own, netip.MustParsePrefix(a))
	}
	v4 := &packetGroup{own: g.own[2:4]}
	for _, c := range []struct {
		group *packetGroup
		to    string
		want  int
	}{
		{g, "10.9.7.1", 0}, {g, "10.9.1.1", 2}, {g, "10.8.0.1", 3}, {g, "10.9.1.2", 2},
		{g, "192.0.2.1", 0}, {g, "fd00:9::1", 1}, {g, "fd00:8::1", 4}, {g, "2001:db8::1", 1},
		{g, "0.0.0.0", 0}, {g, "::", 1},
		{v4, "2001:db8::1", -1}, {v4, "::", 0}, {v4, "192.0.2.1", 0},
	} {
		if got := c.group.sender(netip.MustParseAddr(c.to)); got != c.want {
			t.Errorf("to %s: sender %d, want %d", c.to, got, c.want)
		}
	}
}
