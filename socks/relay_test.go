package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fronts are the two ways to a tunnel.
var fronts = []struct{ name, hello, answer string }{
	{"SOCKS5", "05 01 00 05 01 00 01 0a090003 0050", "05 00 05 00 00 01 7f000001"},
	{"CONNECT", "'CONNECT 10.9.0.3:80 HTTP/1.1\r\nHost: 10.9.0.3:80\r\n\r\n'", "'HTTP/1.1 200 Connection established\r\n\r\n'"},
}

// tunnel returns both ends of a tunnel over TCP on loopback.
func tunnel(t *testing.T, s *Server, hello, answer string) (client, far *net.TCPConn) {
	t.Helper()
	l := listenTCP(t)
	s.Dial = dialTo(l.Addr().String())
	client = dialTCP(t, serveTCP(t, s))
	d := dialog{t, client}
	d.send(hello)
	far, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(time.Minute))
	d.want(answer)
	if hello[0] == '0' {
		if _, err := io.ReadFull(client, make([]byte, 2)); err != nil { // BND.PORT
			t.Fatal(err)
		}
	}
	return client, far
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func isReset(err error) bool {
	const winsock = syscall.Errno(10054) // WSAECONNRESET
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, winsock)
}

// Each side may end its stream, and the other's still arrives, whole and
// with its end.
func TestHalfClose(t *testing.T) {
	question, answer := noise(300<<10), noise(8<<20)
	for _, front := range fronts {
		for _, farFirst := range []bool{false, true} {
			name := front.name + ", client first"
			if farFirst {
				name = front.name + ", target first"
			}
			t.Run(name, func(t *testing.T) {
				s := new(Server)
				first, second := tunnel(t, s, front.hello, front.answer)
				if farFirst {
					first, second = second, first
				}
				var sending sync.WaitGroup
				sending.Go(func() {
					first.Write(question)
					first.CloseWrite()
				})
				got, err := io.ReadAll(second)
				if err != nil || !bytes.Equal(got, question) {
					t.Fatalf("%d bytes of %d, %v", len(got), len(question), err)
				}
				sending.Wait()
				sending.Go(func() {
					second.Write(answer)
					second.CloseWrite()
				})
				got, err = io.ReadAll(first)
				if err != nil || !bytes.Equal(got, answer) {
					t.Fatalf("%d bytes of %d, %v", len(got), len(answer), err)
				}
				sending.Wait()
				s.Close()
				if n := len(s.conns.targets); n != 0 {
					t.Errorf("%d connections are not forgotten", n)
				}
				up, down := uint64(len(question)), uint64(len(answer))
				if farFirst {
					up, down = down, up
				}
				if got := s.Stats(); got.BytesToTarget != up || got.BytesToClient != down || got.Broken != 0 {
					t.Errorf("%+v, want %d up and %d down", got, up, down)
				}
			})
		}
	}
}

// A reset on one side is a reset on the other, not an end that looks whole.
func TestResetIsPassedOn(t *testing.T) {
	for _, front := range fronts {
		for _, farFirst := range []bool{false, true} {
			s := new(Server)
			dying, other := tunnel(t, s, front.hello, front.answer)
			if farFirst {
				dying, other = other, dying
			}
			dying.Write([]byte("half of it"))
			if _, err := io.ReadFull(other, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			dying.SetLinger(0)
			dying.Close()
			if _, err := other.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("%s, target first %v: %v, want a reset", front.name, farFirst, err)
			}
			s.Close()
			if got := s.Stats(); got.Broken != 1 {
				t.Errorf("%d broken, want 1", got.Broken)
			}
		}
	}
}

// Close resets what is open: half a download must not look like the whole.
func TestCloseResets(t *testing.T) {
	for _, front := range fronts {
		s := new(Server)
		client, far := tunnel(t, s, front.hello, front.answer)
		s.Close()
		for name, c := range map[string]net.Conn{"client": client, "target": far} {
			if _, err := c.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("%s %s: %v, want a reset", front.name, name, err)
			}
		}
		if got := s.Stats(); got.Active != 0 || got.Broken != 0 {
			t.Errorf("%+v", got)
		}
	}
}

// Without CloseWrite there is no half-close: the connection ends, and does not hang.
func TestTargetWithoutCloseWrite(t *testing.T) {
	ours, theirs := net.Pipe()
	addr := serveTCP(t, &Server{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
	client := dialTCP(t, addr)
	d := dialog{t, client}
	d.send("05 01 00 05 01 00 01 0a090003 0050")
	d.want("05 00 05 00 00 01 00000000 0000")
	client.CloseWrite()
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("target: %v, want the end of the stream", err)
	}
	d.wantClosed()
}

// Data that comes in pieces around the sizes of the buffers, with pauses
// around the time after which the large one is given back, arrives unchanged.
func TestPausesAndSizes(t *testing.T) {
	sizes := []int{1, restBuffer - 1, restBuffer, restBuffer + 1, 2 * restBuffer, burstBuffer - 1,
		burstBuffer, burstBuffer + 1, burstBuffer + restBuffer, 3*burstBuffer + 7}
	pauses := []time.Duration{0, burstLinger / 2, burstLinger - 1, burstLinger, burstLinger + 1, 3 * burstLinger}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		l, stop := serveMemory(t, &Server{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
		defer stop()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 00 00 01 00000000 0000")
		var want []byte
		for range pauses {
			for _, size := range sizes {
				want = append(want, noise(size)...)
			}
		}
		go func() {
			defer theirs.Close()
			rest := want
			for _, pause := range pauses {
				for _, size := range sizes {
					if _, err := theirs.Write(rest[:size]); err != nil {
						return
					}
					rest = rest[size:]
					time.Sleep(pause)
				}
			}
		}()
		got, err := io.ReadAll(d.conn)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
	})
}

// Many connections at once, both ways, under the race detector.
func TestManyAtOnce(t *testing.T) {
	far := listenTCP(t)
	var echoes sync.WaitGroup
	echoes.Go(func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			echoes.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	addr := serveTCP(t, &Server{Dial: dialTo(far.Addr().String())})
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			front := fronts[i%len(fronts)]
			c := dialTCP(t, addr)
			c.Write(unwrite(t, front.hello))
			skip := len(unwrite(t, front.answer))
			if front.name == "SOCKS5" {
				skip += 2
			}
			if _, err := io.ReadFull(c, make([]byte, skip)); err != nil {
				t.Error(err)
				return
			}
			text := noise(100_000 + i*1000)
			go func() {
				c.Write(text)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
			}
		})
	}
	clients.Wait()
	far.Close()
	echoes.Wait()
}
