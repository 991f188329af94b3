package socks

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One host never answers. Clients that want others are served at once, whatever wants that one; and
// what is too much for it is told so at once, and not after the dial's time.
func TestHungDialsStarveNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, hung = 5, 20
		s := &Server{
			MaxDialsPerHost: most, MaxConns: most + 2,
			Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				if hostOf(a) == "dead.adit" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return dialEcho(ctx, n, a)
			},
		}
		l, stop := serveMemory(t, s)
		defer stop()
		start := time.Now()
		var waiting sync.WaitGroup
		for i := range hung {
			d := dialog{t, l.connect(t)}
			port := fmt.Sprintf("%04x", 1+i)
			if i < most {
				waiting.Go(func() {
					d.send("05 01 00 05 01 00 03 09 'dead.adit' " + port)
					d.want("05 00 05 06 00 01 00000000 0000")
					d.conn.Close()
				})
				synctest.Wait()
				continue
			}
			// However it is written, it is one host.
			if i%2 == 0 {
				d.send("'GET http://DEAD.adit./ HTTP/1.1\r\nHost: DEAD.adit.\r\nConnection: close\r\n\r\n'")
				d.want("'HTTP/1.1 502 Bad Gateway\r\n'")
			} else {
				d.send("05 01 00 05 01 00 03 0a 'Dead.adit.' " + port)
				d.want("05 00 05 01 00 01 00000000 0000")
			}
			d.conn.Close()
			synctest.Wait()
		}
		for range 50 {
			d := dialog{t, l.connect(t)}
			d.send("05 01 00 05 01 00 03 08 'web.adit' 0050 'x'")
			d.want("05 00 05 00 00 01 00000000 0000 'x'")
			d.conn.Close()
			synctest.Wait()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("others waited %v", took)
		}
		waiting.Wait()
		synctest.Wait()
		if took := time.Since(start); took != DefaultDialTimeout {
			t.Errorf("dials that came to nothing took %v, want %v", took, DefaultDialTimeout)
		}
		if got := s.Stats(); got.TooManyDials != hung-most || got.DialTimedOut != most || got.OverMaxConns != 0 || len(s.dials.hosts) != 0 {
			t.Errorf("%+v, %d hosts kept", got, len(s.dials.hosts))
		}
	})
}

// Ten thousand clients that say nothing are let go, and leave nothing.
func TestTenThousandSilentClientsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		s := &Server{Dial: dialEcho}
		l, stop := serveMemory(t, s)
		defer stop()
		start := time.Now()
		var ends []net.Conn
		for range many {
			ends = append(ends, l.connect(t))
		}
		for _, c := range ends {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("%v", err)
			}
		}
		if took := time.Since(start); took != DefaultHandshakeTimeout {
			t.Errorf("the last was let go after %v, want %v", took, DefaultHandshakeTimeout)
		}
		synctest.Wait()
		if got := s.Stats(); got.Active != 0 || got.HandshakeTimeout != many {
			t.Errorf("%+v", got)
		}
	})
}

// Rule and password are asked with each request, whatever was allowed on the same connection before, and
// whether or not a connection to the server is still open.
func TestEachRequestOfAConnectionIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked bool
		var dialled []string
		s := &Server{
			Username: "user", Password: "pass",
			Allow: func(_ context.Context, address string) error {
				if revoked || address != "web.adit:80" {
					return ErrNotAllowed
				}
				return nil
			},
			Dial: func(_ context.Context, _, address string) (net.Conn, error) {
				dialled = append(dialled, address)
				ours, theirs := net.Pipe()
				go answer(theirs)
				return ours, nil
			},
		}
		l, stop := serveMemory(t, s)
		defer stop()
		const auth = "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"
		get := func(c net.Conn, host, header, status string) {
			t.Helper()
			fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n", host, header)
			b := make([]byte, 4096)
			n, err := c.Read(b)
			if err != nil || n < 12 || string(b[9:12]) != status {
				t.Fatalf("%s: %q, %v; want %s", host, b[:n], err, status)
			}
			for !httpEnd(b[:n]) {
				m, err := c.Read(b[n:])
				if n += m; err != nil {
					t.Fatal(err)
				}
			}
		}
		c := l.connect(t)
		defer c.Close()
		get(c, "web.adit", auth, "200")
		get(c, "db.adit", auth, "403")
		get(c, "web.adit", auth, "200")
		get(c, "web.adit", "", "407")
		get(c, "web.adit", auth, "200")
		revoked = true
		get(c, "web.adit", auth, "403")
		if len(dialled) != 1 || dialled[0] != "web.adit:80" {
			t.Errorf("dialled %q, want web.adit:80 once", dialled)
		}
		if got := s.Stats(); got.Denied != 2 || got.HTTPRequests != 6 {
			t.Errorf("%+v", got)
		}
	})
}

// httpEnd reports whether b is a whole response of those in these tests, which all have a length.
func httpEnd(b []byte) bool {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return false
	}
	_, err = io.ReadAll(r.Body)
	return err == nil
}
