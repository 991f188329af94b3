package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.conns <- far
	return near
}

// inFakeTime runs f with a server in memory, in a bubble of fake time.
func inFakeTime(t *testing.T, api API, f func(t *testing.T, s *Server, l *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newServer(api, nil)
		s.serve(s.gate(l, nil))
		f(t, s, l)
		s.Close()
	})
}

var testAPI = API{
	Status: func(Stats) any { return map[string]string{"name": "laptop"} },
	Ping: func(ctx context.Context, host string) (any, error) {
		switch host {
		case "web.adit":
			return map[string]string{"address": "10.9.0.3"}, nil
		case "nobody.adit":
			return nil, &net.DNSError{Err: "no member", Name: host, IsNotFound: true}
		case "silent.adit":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errors.New("no way")
	},
}

// ask sends text and returns the whole answer.
func ask(t *testing.T, l *pipes, text string) string {
	t.Helper()
	c := l.dial()
	defer c.Close()
	go io.WriteString(c, text)
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func post(path, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: adit\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// TestOnlyTheAPIIsServed has a table of requests and what must become of each.
func TestOnlyTheAPIIsServed(t *testing.T) {
	const get = "GET /v1/status HTTP/1.1\r\n"
	for _, c := range []struct {
		name, request string
		want          string // how the answer begins
		within        string // and what it holds
	}{
		{"status", get + "Host: adit\r\n\r\n", "HTTP/1.1 200 ", `{"name":"laptop"}`},
		{"ping", post("/v1/ping", `{"host":"web.adit"}`), "HTTP/1.1 200 ", `{"address":"10.9.0.3"}`},

		{"a page rebinding a name", get + "Host: evil.example\r\n\r\n", "HTTP/1.1 403 ", "the Host must be adit"},
		{"loopback's name", get + "Host: localhost\r\n\r\n", "HTTP/1.1 403 ", ""},
		{"no host", "GET /v1/status HTTP/1.0\r\n\r\n", "HTTP/1.0 403 ", ""},
		{"another host in the target", "GET http://evil.example/v1/status HTTP/1.1\r\nHost: adit\r\n\r\n", "HTTP/1.1 403 ", ""},
		{"a page", get + "Host: adit\r\nOrigin: https://evil.example\r\n\r\n", "HTTP/1.1 403 ", "web pages may not use this"},
		{"a page without origin", get + "Host: adit\r\nOrigin: null\r\n\r\n", "HTTP/1.1 403 ", ""},
		{"an empty origin", get + "Host: adit\r\nOrigin:\r\n\r\n", "HTTP/1.1 403 ", ""},

		{"another method", "POST /v1/status HTTP/1.1\r\nHost: adit\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 ", "want GET"},
		{"preflight", "OPTIONS /v1/ping HTTP/1.1\r\nHost: adit\r\n\r\n", "HTTP/1.1 405 ", "want POST"},
		{"a proxy's", "CONNECT adit:80 HTTP/1.1\r\nHost: adit\r\n\r\n", "HTTP/1.1 40", ""},
		{"another path", "GET / HTTP/1.1\r\nHost: adit\r\n\r\n", "HTTP/1.1 404 ", ""},
		{"a path about", "GET /v1/../v1/status HTTP/1.1\r\nHost: adit\r\n\r\n", "HTTP/1.1 404 ", ""},
		{"no HTTP", "hello\r\n\r\n", "HTTP/1.1 400 ", ""},
		{"a long header", get + "Host: adit\r\nX: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", "HTTP/1.1 431 ", ""},

		{"no host to ping", post("/v1/ping", `{}`), "HTTP/1.1 400 ", ""},
		{"no JSON", post("/v1/ping", `web`), "HTTP/1.1 400 ", ""},
		{"an unknown field", post("/v1/ping", `{"host":"web.adit","flood":true}`), "HTTP/1.1 400 ", ""},
		{"a long body", post("/v1/ping", `{"host":"`+strings.Repeat("x", 8<<10)+`"}`), "HTTP/1.1 400 ", ""},
		{"a long tail", post("/v1/ping", `{"host":"web.adit"}`+strings.Repeat(" ", 8<<10)), "HTTP/1.1 400 ", ""},

		{"nobody of that name", post("/v1/ping", `{"host":"nobody.adit"}`), "HTTP/1.1 404 ", "no member"},
		{"no answer", post("/v1/ping", `{"host":"silent.adit"}`), "HTTP/1.1 504 ", ""},
		{"no way", post("/v1/ping", `{"host":"10.9.0.9"}`), "HTTP/1.1 502 ", "no way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, testAPI, func(t *testing.T, s *Server, l *pipes) {
				got := ask(t, l, c.request)
				if !strings.HasPrefix(got, c.want) || !strings.Contains(got, c.within) {
					t.Errorf("got %q", got)
				}
				if strings.Contains(got, "laptop") != (c.name == "status") {
					t.Errorf("the status got out: %q", got)
				}
			})
		})
	}
}

func TestWhoSaysNothingIsCutOff(t *testing.T) {
	for name, begin := range map[string]string{
		"nothing":       "",
		"half a header": "GET /v1/status HTTP/1.1\r\nHost:",
		"half a body":   "POST /v1/ping HTTP/1.1\r\nHost: adit\r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, testAPI, func(t *testing.T, s *Server, l *pipes) {
				c := l.dial()
				defer c.Close()
				start := time.Now()
				go io.WriteString(c, begin)
				io.Copy(io.Discard, c)
				if d := time.Since(start); d > requestTime+time.Second {
					t.Errorf("cut off after %v", d)
				}
			})
		})
	}
}

func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	inFakeTime(t, testAPI, func(t *testing.T, s *Server, l *pipes) {
		c := l.dial() // of which nothing is read: a pipe holds nothing
		defer c.Close()
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: adit\r\n\r\n")
		time.Sleep(answerTime + time.Second)
		synctest.Wait()
		if n, err := c.Write([]byte("x")); err == nil {
			t.Errorf("the connection took %d byte more", n)
		}
	})
}

func TestOneConnectionTooManyIsCutOff(t *testing.T) {
	inFakeTime(t, testAPI, func(t *testing.T, s *Server, l *pipes) {
		for range maxConns {
			c := l.dial()
			defer c.Close()
		}
		over := l.dial()
		defer over.Close()
		if _, err := over.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if n := s.Stats().OverLimit; n != 1 {
			t.Errorf("%d counted over the limit", n)
		}
		time.Sleep(requestTime + time.Second) // the silent ones make room
		synctest.Wait()
		if got := ask(t, l, "GET /v1/status HTTP/1.1\r\nHost: adit\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("got %q", got)
		}
	})
}

// TestLongPingIsWaitedFor: the bounds on slow clients are none on slow answers.
func TestLongPingIsWaitedFor(t *testing.T) {
	api := API{Ping: func(ctx context.Context, _ string) (any, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(MaxPingTimeout - time.Second):
			return map[string]string{"address": "10.9.0.3"}, nil
		}
	}}
	inFakeTime(t, api, func(t *testing.T, s *Server, l *pipes) {
		got := ask(t, l, post("/v1/ping", `{"host":"web.adit","timeout_ns":3600000000000}`))
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("got %q", got)
		}
	})
}

func TestPingEndsWithItsClient(t *testing.T) {
	ended := make(chan error, 1)
	api := API{Ping: func(ctx context.Context, _ string) (any, error) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}}
	l := newPipes()
	s := newServer(api, nil)
	s.serve(s.gate(l, nil))
	defer s.Close()
	c := l.dial()
	io.WriteString(c, post("/v1/ping", `{"host":"web.adit","timeout_ns":3600000000000}`))
	c.Close()
	if err := <-ended; errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestCloseEndsWhatIsServed(t *testing.T) {
	inFakeTime(t, testAPI, func(t *testing.T, s *Server, l *pipes) {
		c := l.dial()
		defer c.Close()
		go io.WriteString(c, post("/v1/ping", `{"host":"silent.adit"}`))
		synctest.Wait()
		start := time.Now()
		done := make(chan struct{})
		go func() { defer close(done); s.http.Close(); s.serving.Wait() }()
		<-done
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			t.Error("an answer")
		}
		l.closed = make(chan struct{}) // for the Close that follows
	})
}
