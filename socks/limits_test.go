package socks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/internal/doctest"
	"github.com/adit-overlay/adit/internal/heaptest"
)

// A client that sends a byte a second, and one that sends none, have the
// handshake's time and no more.
func TestSlowClients(t *testing.T) {
	for _, tt := range []struct {
		name, sends string
		timeouts    time.Duration // the handshake's time, once or twice
	}{
		{"silent", "", 1},
		{"SOCKS5 methods", "05 ff" + strings.Repeat("00", 255), 1},
		{"SOCKS5 name", "05 01 00 05 01 00 03 ff '" + strings.Repeat("n", 255) + "'", 1},
		{"HTTP header", "'GET http://10.9.0.3/" + strings.Repeat("a", 255) + "'", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Dial: dialEcho}
				l, stop := serveMemory(t, s)
				defer stop()
				start := time.Now()
				c := l.connect(t)
				var sender sync.WaitGroup
				sender.Go(func() {
					for _, b := range unwrite(t, tt.sends) {
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
				io.Copy(io.Discard, c)
				took := time.Since(start)
				sender.Wait()
				if took < DefaultHandshakeTimeout || took > tt.timeouts*DefaultHandshakeTimeout+time.Second {
					t.Errorf("closed after %v", took)
				}
				synctest.Wait()
				if got := s.Stats(); got.HandshakeTimeout != 1 || got.Active != 0 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

func TestEndlessHeaderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: dialEcho}
		l, stop := serveMemory(t, s)
		defer stop()
		c := l.connect(t)
		sent := make(chan int)
		go func() {
			line := []byte("GET http://10.9.0.3/ HTTP/1.1\r\n")
			total := 0
			for {
				n, err := c.Write(line)
				if total += n; err != nil {
					sent <- total
					return
				}
				line = []byte("A: " + strings.Repeat("a", 1000) + "\r\n")
			}
		}()
		io.Copy(io.Discard, c)
		if n := <-sent; n > maxHeader+16<<10 {
			t.Errorf("took %d bytes of header", n)
		}
		synctest.Wait()
		if got := s.Stats(); got.Malformed != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestDialTimeout(t *testing.T) {
	for _, words := range []error{nil, errors.New("gave up, in its own words")} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				if words != nil {
					return nil, words
				}
				return nil, ctx.Err()
			}}
			l, stop := serveMemory(t, s)
			defer stop()
			start := time.Now()
			d := dialog{t, l.connect(t)}
			d.send("05 01 00 05 01 00 01 0a090003 0050")
			d.want("05 00 05 06 00 01 00000000 0000")
			d.wantClosed()
			if took := time.Since(start); took != DefaultDialTimeout {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Nothing moving ends a connection; a byte in either direction counts.
func TestIdleTimeout(t *testing.T) {
	const limit = time.Minute
	for _, hello := range []string{"05 01 00 05 01 00 01 0a090003 0050", "'CONNECT 10.9.0.3:80 HTTP/1.1\r\n\r\n'"} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{Dial: dialEcho, IdleTimeout: limit}
			l, stop := serveMemory(t, s)
			defer stop()
			d := dialog{t, l.connect(t)}
			d.send(hello)
			if strings.HasPrefix(hello, "05") {
				d.want("05 00 05 00 00 01 00000000 0000")
			} else {
				d.want("'HTTP/1.1 200 Connection established\r\n\r\n'")
			}
			for range 5 {
				time.Sleep(limit - time.Second)
				d.send("'x'")
				d.want("'x'")
			}
			start := time.Now()
			d.wantClosed()
			if took := time.Since(start); took != limit {
				t.Errorf("closed after %v, want %v", took, limit)
			}
			synctest.Wait()
			if got := s.Stats(); got.Idle != 1 || got.Broken != 0 || got.Active != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A reader that has stopped reading is as idle as one that has nothing to read.
func TestIdleTimeoutOfABlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{IdleTimeout: time.Minute, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				for {
					if _, err := theirs.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
			return ours, nil
		}}
		l, stop := serveMemory(t, s)
		defer stop()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 00 00 01 00000000 0000")
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		if got := s.Stats(); got.Idle != 1 || got.Active != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Bytes just come wait for their reader a whole timeout, not what was left of it.
func TestLateBytesKeepTheConnection(t *testing.T) {
	const limit = time.Minute
	synctest.Test(t, func(t *testing.T) {
		l, stop := serveMemory(t, &Server{IdleTimeout: limit, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				time.Sleep(limit - time.Second)
				theirs.Write([]byte("x"))
				theirs.Close()
			}()
			return ours, nil
		}})
		defer stop()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 00 00 01 00000000 0000")
		time.Sleep(limit + limit/2)
		d.want("'x'")
		d.wantClosed()
	})
}

// A slow answer to a plain request is not cut while it moves, and is when it
// does not.
func TestIdleTimeoutOfForwarding(t *testing.T) {
	const limit = time.Minute
	synctest.Test(t, func(t *testing.T) {
		s := &Server{IdleTimeout: limit, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
					t.Error(err)
				}
				io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
				for range 5 {
					time.Sleep(limit - time.Second)
					io.WriteString(theirs, "x")
				}
				io.Copy(io.Discard, theirs)
			}()
			return ours, nil
		}}
		l, stop := serveMemory(t, s)
		defer stop()
		c := l.connect(t)
		start := time.Now()
		dialog{t, c}.send("'GET http://10.9.0.3/ HTTP/1.1\r\nHost: 10.9.0.3\r\n\r\n'")
		got, err := io.ReadAll(c)
		if err != nil || !bytes.HasSuffix(got, []byte("\r\n\r\nxxxxx")) {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(start); took != 5*(limit-time.Second)+limit {
			t.Errorf("closed after %v", took)
		}
		synctest.Wait()
		if got := s.Stats(); got.Idle != 1 || got.Active != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: dialEcho, MaxConns: 3}
		l, stop := serveMemory(t, s)
		defer stop()
		var in []net.Conn
		for range 3 {
			in = append(in, l.connect(t))
		}
		dialog{t, l.connect(t)}.wantClosed()
		if got := s.Stats(); got.OverMaxConns != 1 || got.Active != 3 {
			t.Errorf("%+v", got)
		}
		in[0].Close()
		synctest.Wait()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00")
		d.want("05 00")
	})
}

func TestMaxConnsPerClient(t *testing.T) {
	set := &connSet{max: 100, maxPerClient: 2}
	admit := func(addr string) (*client, admission) {
		conn, _ := net.Pipe()
		return set.admit(withRemote{conn, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))})
	}
	first, _ := admit("192.0.2.1:1")
	for _, tt := range []struct {
		addr string
		want admission
	}{
		{"192.0.2.1:2", admitted},
		{"192.0.2.1:3", overMaxPerClient},
		{"[::ffff:192.0.2.1]:4", overMaxPerClient},
		{"192.0.2.2:1", admitted},
		{"[2001:db8::1]:1", admitted},
		{"[2001:db8::2]:1", admitted},
		{"[2001:db8::3]:1", overMaxPerClient}, // one /64
		{"[2001:db8:0:1::1]:1", admitted},
		{"127.0.0.1:1", admitted},
		{"127.0.0.1:2", admitted},
		{"127.0.0.1:3", admitted}, // loopback is not counted
		{"[::1]:1", admitted},
	} {
		if _, got := admit(tt.addr); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.addr, got, tt.want)
		}
	}
	first.release()
	first.release()
	if _, got := admit("192.0.2.1:5"); got != admitted {
		t.Error("a client that left still counts")
	}
	if _, got := admit("192.0.2.1:6"); got != overMaxPerClient {
		t.Error("a client that left counts twice")
	}
	for c := range set.clients {
		c.release()
	}
	if len(set.perClient) != 0 {
		t.Errorf("kept %v", set.perClient)
	}
}

type withRemote struct {
	net.Conn
	remote net.Addr
}

func (c withRemote) RemoteAddr() net.Addr { return c.remote }

// Connections that carried bulk data and went quiet hold little memory, while
// as many remain open as a busy machine has.
func TestMemoryOfIdleConnections(t *testing.T) {
	const conns, limit = 2000, 64 << 10
	for _, tt := range []struct{ name, hello, answer string }{
		{"SOCKS5", "05 01 00 05 01 00 01 0a090003 0050", "05 00 05 00 00 01 00000000 0000"},
		{"CONNECT", "'CONNECT 10.9.0.3:80 HTTP/1.1\r\n\r\n'", "'HTTP/1.1 200 Connection established\r\n\r\n'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The far end of each connection sends once and waits.
				s := &Server{Dial: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() {
						theirs.Write(make([]byte, 64<<10))
						theirs.Read(make([]byte, 1))
						theirs.Close()
					}()
					return ours, nil
				}}
				l, stop := serveMemory(t, s)
				defer stop()
				before := heaptest.InUse()
				open := make([]net.Conn, 0, conns)
				bulk := make([]byte, 64<<10)
				for range conns {
					d := dialog{t, l.connect(t)}
					d.send(tt.hello)
					d.want(tt.answer)
					if _, err := io.ReadFull(d.conn, bulk); err != nil {
						t.Fatal(err)
					}
					open = append(open, d.conn)
				}
				time.Sleep(3 * burstLinger)
				synctest.Wait()
				if lent := len(s.bursts.large.slots); lent != 0 {
					t.Errorf("%d large buffers are held by idle connections", lent)
				}
				each := (heaptest.InUse() - before) / conns
				t.Logf("%d bytes for each of %d idle connections, both far ends included", each, conns)
				if each > limit {
					t.Errorf("%d bytes for each idle connection, want at most %d", each, limit)
				}
				if got := s.Stats().Active; got != conns {
					t.Errorf("%d connections", got)
				}
				for _, c := range open {
					c.Close()
				}
			})
		})
	}
}

// Large buffers are bounded in number; without one a connection works all the same.
func TestBurstBuffersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: dialEcho}
		l, stop := serveMemory(t, s)
		defer stop()
		synctest.Wait()
		for i := range maxBursts + maxCrowded {
			want := burstBuffer
			if i >= maxBursts {
				want = crowdBuffer
			}
			if buf, _ := s.bursts.get(); len(buf) != want {
				t.Fatalf("buffer %d has %d bytes, want %d", i, len(buf), want)
			}
		}
		if buf, _ := s.bursts.get(); buf != nil {
			t.Fatal("one buffer too many")
		}
		d := dialog{t, l.connect(t)}
		defer d.conn.Close()
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 00 00 01 00000000 0000")
		text := "'" + strings.Repeat("bulk", 50000) + "'"
		go d.send(text)
		d.want(text)
	})
}

// Close cancels a dial under way, and waits for it.
func TestCloseDuringDial(t *testing.T) {
	for _, hello := range []string{
		"05 01 00 05 01 00 01 0a090003 0050",
		"'CONNECT 10.9.0.3:80 HTTP/1.1\r\n\r\n'",
		"'GET http://10.9.0.3/ HTTP/1.1\r\nHost: 10.9.0.3\r\n\r\n'",
	} {
		synctest.Test(t, func(t *testing.T) {
			var running atomic.Int32
			s := &Server{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				running.Add(1)
				defer running.Add(-1)
				<-ctx.Done()
				time.Sleep(time.Second)
				return nil, ctx.Err()
			}}
			l, stop := serveMemory(t, s)
			c := l.connect(t)
			dialog{t, c}.send(hello)
			go io.Copy(io.Discard, c)
			synctest.Wait()
			if running.Load() != 1 {
				t.Fatalf("%s: %d dials under way", hello, running.Load())
			}
			start := time.Now()
			stop()
			if running.Load() != 0 || time.Since(start) != time.Second {
				t.Errorf("%s: %d dials under way after Close, which took %v", hello, running.Load(), time.Since(start))
			}
			if err := s.Serve(newMemoryListener()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Serve after Close: %v", err)
			}
		})
	}
}

func pipeEnd() net.Conn {
	c, _ := net.Pipe()
	return c
}

// A dial ends with Close even where its caller would go on.
func TestDialEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		s.prepare()
		time.AfterFunc(time.Second, func() { s.Close() })
		if _, err := s.dial(context.Background(), "10.9.0.3:80"); !errors.Is(err, context.Canceled) {
			t.Errorf("dial: %v", err)
		}
		if conn, err := s.conns.hold(pipeEnd()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed server holds %v, %v", conn, err)
		}
	})
}

// A burst that dwindles gives its large buffer back at once.
func TestDwindlingBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := &Server{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		l, stop := serveMemory(t, s)
		defer stop()
		defer theirs.Close()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 00 00 01 00000000 0000")
		for _, tt := range []struct{ size, lent int }{{restBuffer - 1, 0}, {restBuffer, 1}, {2 * restBuffer, 1}, {10, 0}} {
			go theirs.Write(make([]byte, tt.size))
			io.ReadFull(d.conn, make([]byte, tt.size))
			synctest.Wait()
			if got := len(s.bursts.large.slots); got != tt.lent {
				t.Errorf("%d large buffers in use after %d bytes, want %d", got, tt.size, tt.lent)
			}
		}
	})
}

func TestCloseWithoutServe(t *testing.T) {
	s := &Server{Dial: dialEcho}
	s.Close()
	s.Close()
}

// flakyListener fails before it gives anything.
type flakyListener struct {
	net.Listener
	errs []error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.Listener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newMemoryListener()
		stop := serve(t, &Server{Dial: dialEcho}, &flakyListener{inner, []error{syscall.EMFILE, syscall.ENOBUFS, syscall.EMFILE}})
		defer stop()
		d := dialog{t, inner.connect(t)}
		d.send("05 01 00")
		d.want("05 00")
	})
	broken := errors.New("broken")
	s := &Server{Dial: dialEcho}
	defer s.Close()
	if err := s.Serve(&flakyListener{newMemoryListener(), []error{broken}}); !errors.Is(err, broken) {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeRefusesAnOpenProxy(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dial: dialEcho}
	defer s.Close()
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	if err := new(Server).Serve(newMemoryListener()); err == nil {
		t.Error("served without Dial")
	}
}

// Wrong passwords are logged, but not each, and never the words themselves.
func TestLogOfWrongPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &Server{Dial: dialEcho, Username: "miner", Password: "lantern",
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		l, stop := serveMemory(t, s)
		for range 50 {
			d := dialog{t, l.connect(t)}
			d.send("05 01 02 01 05 'miner' 07 'lantren'")
			d.want("05 02 01 01")
			d.wantClosed()
			d = dialog{t, l.connect(t)}
			d.send("'GET http://10.9.0.3/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic bWluZXI6bGFudHJlbg==\r\n\r\n'")
			d.want("'HTTP/1.1 407 Proxy Authentication Required\r\n'")
			io.Copy(io.Discard, d.conn)
		}
		stop()
		if got := s.Stats().AuthFailed; got != 100 {
			t.Errorf("%d counted, want 100", got)
		}
		text := log.String()
		if n := strings.Count(text, "WARN"); n < 1 || n > 10 {
			t.Errorf("%d warnings", n)
		}
		for _, secret := range []string{"miner", "lantern", "lantren", "bWluZXI6"} {
			if strings.Contains(text, secret) {
				t.Errorf("the log has %q", secret)
			}
		}
	})
}

// The defaults that people are told are those there are.
func TestDocumentedDefaults(t *testing.T) {
	doctest.WantDefaults(t, "socks", map[string]any{
		"max_connections":            DefaultMaxConns,
		"max_connections_per_client": DefaultMaxConnsPerClient,
		"max_dials_per_host":         "half of max_connections",
		"handshake_timeout":          DefaultHandshakeTimeout,
		"idle_timeout":               DefaultIdleTimeout,
	})
}
