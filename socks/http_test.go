package socks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
)

// web is a web server that says what reached it. It counts its connections,
// and tells of each that has ended.
func web(t *testing.T) (addr string, conns *atomic.Int32, ended chan struct{}) {
	t.Helper()
	conns = new(atomic.Int32)
	ended = make(chan struct{}, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "between server and proxy")
		w.Header().Set("X-Public", "for the client")
		fmt.Fprintf(w, "%s %s host=%s\n", r.Method, r.URL.RequestURI(), r.Host)
		r.Header.Write(w)
		io.Copy(w, r.Body)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed:
			ended <- struct{}{}
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), conns, ended
}

// through returns a client that uses the proxy at addr.
func through(t *testing.T, addr string, user *url.Userinfo) *http.Client {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: addr, User: user})}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func body(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestForward(t *testing.T) {
	far, _, _ := web(t)
	var dialled atomic.Value
	s := &Server{Username: "user", Password: "pass", Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
		dialled.Store(a)
		return dialTo(far)(ctx, n, a)
	}}
	client := through(t, serveTCP(t, s), url.UserPassword("user", "pass"))

	req, _ := http.NewRequest("POST", "http://web.adit/a%2fb?q=1;2&x=%zz", strings.NewReader("the body"))
	req.Header.Set("X-Forwarded-For", "192.0.2.9")
	req.Header.Set("Connection", "X-Hop")
	req.Header.Set("X-Hop", "one")
	req.Header.Set("Proxy-Connection", "keep-alive")
	req.Header.Set("X-End", "two")
	resp, err := client.Do(req)
	got := body(t, resp, err)

	if resp.StatusCode != 200 || resp.Header.Get("X-Public") == "" || resp.Header.Get("X-Private") != "" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	if a := dialled.Load(); a != "web.adit:80" {
		t.Errorf("dialled %v", a)
	}
	for _, want := range []string{
		"POST /a%2fb?q=1;2&x=%zz host=web.adit\n", "X-Forwarded-For: 192.0.2.9\r\n", "X-End: two\r\n", "Via: 1.1 proxy\r\n", "the body",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the server did not get %q:\n%s", want, got)
		}
	}
	for _, leak := range []string{"Proxy-", "X-Hop", "127.0.0.1"} {
		if strings.Contains(got, leak) {
			t.Errorf("the server got %q:\n%s", leak, got)
		}
	}
	if got := s.Stats(); got.HTTPRequests != 1 || got.Connected != 1 {
		t.Errorf("%+v", got)
	}
}

// One client's requests share a connection to the server; two clients' do not,
// since a server may tell users by it.
func TestForwardKeepsConnectionsApart(t *testing.T) {
	far, conns, ended := web(t)
	addr := serveTCP(t, &Server{Dial: dialTo(far)})
	for i := range 2 {
		client := through(t, addr, nil)
		for range 3 {
			resp, err := client.Get("http://web.adit/")
			body(t, resp, err)
		}
		if got := int(conns.Load()); got != i+1 {
			t.Errorf("%d connections for %d clients", got, i+1)
		}
		client.CloseIdleConnections()
		<-ended // with the client's
	}
}

func TestHTTPTranscripts(t *testing.T) {
	const (
		good  = "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" // user:pass
		wrong = "Proxy-Authorization: Basic dXNlcjpub3Bl\r\n"
	)
	for _, tt := range []struct {
		name     string
		password bool
		dialErr  error
		request  string // line breaks are added
		status   string
		contains string
		closed   bool // by the server
		dials    int
	}{
		{name: "CONNECT", request: "CONNECT web.adit:443 HTTP/1.1", status: "200 Connection established", dials: 1},
		{name: "CONNECT of HTTP/1.0", request: "CONNECT web.adit:443 HTTP/1.0", status: "200 Connection established", dials: 1},
		{name: "CONNECT with password", password: true, request: "CONNECT web.adit:443 HTTP/1.1\r\n" + good, status: "200 Connection established", dials: 1},
		{name: "CONNECT, wrong password", password: true, request: "CONNECT web.adit:443 HTTP/1.1\r\n" + wrong, status: "407", closed: true},
		{name: "CONNECT, no password", password: true, request: "CONNECT web.adit:443 HTTP/1.1", status: "407", contains: "Proxy-Authenticate: Basic"},
		{name: "GET, no password", password: true, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "407"},
		{name: "other scheme", password: true, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nProxy-Authorization: Bearer dXNlcjpwYXNz", status: "407", closed: true},
		{name: "no base64", password: true, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nProxy-Authorization: Basic ???", status: "407", closed: true},
		{name: "password of a server", password: true, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nAuthorization: Basic dXNlcjpwYXNz", status: "407"},
		{name: "no port", request: "CONNECT web.adit HTTP/1.1", status: "400"},
		{name: "port 0", request: "CONNECT web.adit:0 HTTP/1.1", status: "400"},
		{name: "port of five digits", request: "CONNECT web.adit:65536 HTTP/1.1", status: "400"},
		{name: "CONNECT to a name that is not ASCII", request: "CONNECT b\u00fccher.adit:443 HTTP/1.1", status: "400"},
		{name: "GET of a name that is not ASCII", request: "GET http://b\u00fccher.adit/ HTTP/1.1\r\nHost: web.adit", status: "400"},
		{name: "GET of its ASCII form", request: "GET http://xn--bcher-kva.adit/ HTTP/1.1\r\nHost: xn--bcher-kva.adit", dialErr: ErrNotAllowed, status: "403", dials: 1},
		{name: "path", request: "CONNECT /etc HTTP/1.1", status: "400"},
		{name: "a request for the proxy itself", request: "GET / HTTP/1.1\r\nHost: 127.0.0.1:1080", status: "400", contains: "this is a proxy"},
		{name: "https", request: "GET https://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "400", contains: "CONNECT"},
		{name: "ftp", request: "GET ftp://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "400"},
		{name: "star", request: "OPTIONS * HTTP/1.1\r\nHost: web.adit", status: "400"},
		{name: "noise", request: "A", status: "400", closed: true},
		{name: "HTTP/2", request: "PRI * HTTP/2.0", status: "400", closed: true},
		{name: "refused", dialErr: syscall.ECONNREFUSED, request: "CONNECT web.adit:443 HTTP/1.1", status: "502", contains: "connection refused", dials: 1},
		{name: "timed out", dialErr: syscall.ETIMEDOUT, request: "CONNECT web.adit:443 HTTP/1.1", status: "504", contains: "timed out", dials: 1},
		{name: "forbidden", dialErr: ErrNotAllowed, request: "CONNECT web.adit:443 HTTP/1.1", status: "403", contains: "not allowed", dials: 1},
		{name: "GET refused", dialErr: syscall.ECONNREFUSED, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "502", contains: "connection refused", dials: 1},
		{name: "GET timed out", dialErr: context.DeadlineExceeded, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "504", dials: 1},
		{name: "GET forbidden", dialErr: ErrNotAllowed, request: "GET http://web.adit/ HTTP/1.1\r\nHost: web.adit", status: "403", dials: 1},
		{name: "error is not shown", dialErr: fmt.Errorf("via 10.7.7.7"), request: "CONNECT web.adit:443 HTTP/1.1", status: "502", contains: "general failure", dials: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				s := &Server{Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
					dials++
					if tt.dialErr != nil {
						return nil, tt.dialErr
					}
					return dialEcho(ctx, n, a)
				}}
				if tt.password {
					s.Username, s.Password = "user", "pass"
				}
				l, stop := serveMemory(t, s)
				defer stop()
				c := l.connect(t)
				defer c.Close()
				d := dialog{t, c}
				// Written beside reading: the server may answer half a request.
				go io.WriteString(c, strings.TrimSuffix(tt.request, "\r\n")+"\r\n\r\n")
				if strings.HasPrefix(tt.status, "200") {
					d.want("'HTTP/1.1 " + tt.status + "\r\n\r\n'")
					d.send("'through'")
					d.want("'through'")
				} else {
					r := bufio.NewReader(c)
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatal(err)
					}
					var all strings.Builder
					resp.Write(&all)
					if !strings.HasPrefix(resp.Status, tt.status) || !strings.Contains(all.String(), tt.contains) {
						t.Errorf("want %s and %q, got:\n%s", tt.status, tt.contains, all.String())
					}
					if strings.Contains(all.String(), "10.7.7.7") {
						t.Errorf("the answer shows the error:\n%s", all.String())
					}
					if resp.Close != tt.closed {
						t.Errorf("Connection: close is %v", resp.Close)
					}
				}
				if dials != tt.dials {
					t.Errorf("%d dials, want %d", dials, tt.dials)
				}
			})
		})
	}
}

// A client may try again with a password over the connection it was asked on.
func TestAskedForPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := serveMemory(t, &Server{Dial: dialEcho, Username: "user", Password: "pass"})
		defer stop()
		c := l.connect(t)
		defer c.Close()
		d := dialog{t, c}
		d.send("'CONNECT web.adit:443 HTTP/1.1\r\n\r\n'")
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, &http.Request{Method: "GET"})
		if err != nil || resp.StatusCode != 407 {
			t.Fatal(resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		d.send("'CONNECT web.adit:443 HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n'")
		d.want("'HTTP/1.1 200 Connection established\r\n\r\n'")
	})
}

// Bytes behind the header of a CONNECT belong to the tunnel.
func TestBytesBehindCONNECT(t *testing.T) {
	for _, extra := range []int{1, 400, 4000, 20000} {
		synctest.Test(t, func(t *testing.T) {
			l, stop := serveMemory(t, &Server{Dial: dialEcho})
			defer stop()
			d := dialog{t, l.connect(t)}
			defer d.conn.Close()
			text := "'" + strings.Repeat("x", extra) + "'"
			go d.send("'CONNECT web.adit:443 HTTP/1.1\r\n\r\n'" + text)
			d.want("'HTTP/1.1 200 Connection established\r\n\r\n'" + text)
		})
	}
}

// A WebSocket's upgrade passes, and ends with either side.
func TestUpgrade(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		line, _ := rw.ReadString('\n')
		io.WriteString(c, "echo "+line)
		rw.ReadString('\n') // until the client goes
	}))
	defer srv.Close()
	s := &Server{Dial: dialTo(srv.Listener.Addr().String())}
	c := dialTCP(t, serveTCP(t, s))
	io.WriteString(c, "GET http://web.adit/ws HTTP/1.1\r\nHost: web.adit\r\nConnection: Upgrade\r\nUpgrade: lamp\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "lamp" {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "light\n")
	if line, err := r.ReadString('\n'); line != "echo light\n" {
		t.Fatal(line, err)
	}
	c.Close()
	s.Close()
	if got := s.Stats().Active; got != 0 {
		t.Errorf("%d clients after Close", got)
	}
}
