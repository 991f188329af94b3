package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

func TestTranscripts(t *testing.T) {
	const (
		hello   = "05 01 00"
		connect = "05 01 00 01 0a090003 0050" // 10.9.0.3:80
		ok      = "05 00 00 01 00000000 0000"
	)
	long := strings.Repeat("n", 255)
	tests := []struct {
		name     string
		password bool     // "user", "pass" are asked for
		dialErr  error    // nil: the dial succeeds
		steps    []string // sent and wanted in turn; the connection is closed after the last wanted
		dialled  string   // "": no dial
		stat     func(Stats) uint64
	}{
		{name: "IPv4", steps: []string{hello, "05 00", connect, ok}, dialled: "10.9.0.3:80",
			stat: func(s Stats) uint64 { return s.Connected }},
		{name: "IPv6", steps: []string{hello, "05 00", "05 01 00 04 fd000009000000000000000000000003 01bb", ok}, dialled: "[fd00:9::3]:443"},
		{name: "name is not resolved", steps: []string{hello, "05 00", "05 01 00 03 08 'web.adit' 1f90", ok}, dialled: "web.adit:8080"},
		{name: "address written as a name", steps: []string{hello, "05 00", "05 01 00 03 08 '10.9.0.3' 0050", ok}, dialled: "10.9.0.3:80"},
		{name: "IPv6 address written as a name", steps: []string{hello, "05 00", "05 01 00 03 07 'fd00::1' 0050", ok}, dialled: "[fd00::1]:80"},
		{name: "longest name", steps: []string{hello, "05 00", "05 01 00 03 ff '" + long + "' ffff", ok}, dialled: long + ":65535"},
		{name: "several methods", steps: []string{"05 03 01 02 00", "05 00", connect, ok}, dialled: "10.9.0.3:80"},
		{name: "reserved byte set", steps: []string{hello, "05 00", "05 01 ff 01 0a090003 0050", ok}, dialled: "10.9.0.3:80"},
		{name: "request without waiting", steps: []string{hello + connect, "05 00" + ok}, dialled: "10.9.0.3:80"},

		{name: "password", password: true, steps: []string{"05 01 02", "05 02", "01 04 'user' 04 'pass'", "01 00", connect, ok}, dialled: "10.9.0.3:80"},
		{name: "password among other methods", password: true, steps: []string{"05 02 00 02", "05 02", "01 04 'user' 04 'pass'", "01 00", connect, ok}, dialled: "10.9.0.3:80"},
		{name: "wrong password", password: true, steps: []string{"05 01 02", "05 02", "01 04 'user' 04 'nope'", "01 01"},
			stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "wrong name", password: true, steps: []string{"05 01 02", "05 02", "01 04 'root' 04 'pass'", "01 01"},
			stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "empty password", password: true, steps: []string{"05 01 02", "05 02", "01 04 'user' 00", "01 01"},
			stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "longest name and password", password: true, steps: []string{"05 01 02", "05 02", "01 ff '" + long + "' ff '" + long + "'", "01 01"},
			stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "no password offered", password: true, steps: []string{hello, "05 ff"},
			stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "command instead of a password", password: true, steps: []string{"05 01 02" + connect, "05 02"},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "password version 5", password: true, steps: []string{"05 01 02", "05 02", "05 04 'user' 04 'pass'", ""},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "no methods", steps: []string{"05 00", "05 ff"}, stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "GSSAPI only", steps: []string{"05 01 01", "05 ff"}, stat: func(s Stats) uint64 { return s.AuthFailed }},
		{name: "password where none is asked", steps: []string{"05 01 02", "05 ff"}, stat: func(s Stats) uint64 { return s.AuthFailed }},

		{name: "BIND", steps: []string{hello, "05 00", "05 02 00 01 0a090003 0050", "05 07 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Unsupported }},
		{name: "UDP ASSOCIATE", steps: []string{hello, "05 00", "05 03 00 01 00000000 0000", "05 07 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Unsupported }},
		{name: "command 0", steps: []string{hello, "05 00", "05 00 00 01 0a090003 0050", "05 07 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Unsupported }},
		{name: "address type 2", steps: []string{hello, "05 00", "05 01 00 02", "05 08 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Unsupported }},
		{name: "request of version 4", steps: []string{hello, "05 00", "04 01 00", ""},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "name of no bytes", steps: []string{hello, "05 00", "05 01 00 03 00 0050", "05 01 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "name with a line break", steps: []string{hello, "05 00", "05 01 00 03 03 610a62 0050", "05 01 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "port 0", steps: []string{hello, "05 00", "05 01 00 01 0a090003 0000", "05 01 00 01 00000000 0000"},
			stat: func(s Stats) uint64 { return s.Malformed }},
		{name: "SOCKS4", steps: []string{"04 01 0050 0a090003 00", ""}, stat: func(s Stats) uint64 { return s.UnknownProtocol }},
		{name: "TLS", steps: []string{"16 03 01 00 05", ""}, stat: func(s Stats) uint64 { return s.UnknownProtocol }},
		{name: "lower case", steps: []string{"'get / HTTP/1.1'", ""}, stat: func(s Stats) uint64 { return s.UnknownProtocol }},

		{name: "refused", dialErr: syscall.ECONNREFUSED, dialled: "10.9.0.3:80",
			steps: []string{hello, "05 00", connect, "05 05 00 01 00000000 0000"}, stat: func(s Stats) uint64 { return s.DialRefused }},
		{name: "nobody answers", dialErr: syscall.ETIMEDOUT, dialled: "10.9.0.3:80",
			steps: []string{hello, "05 00", connect, "05 06 00 01 00000000 0000"}, stat: func(s Stats) uint64 { return s.DialTimedOut }},
		{name: "text of an error means nothing", dialErr: errors.New("refused: network is unreachable"), dialled: "10.9.0.3:80",
			steps: []string{hello, "05 00", connect, "05 01 00 01 00000000 0000"}, stat: func(s Stats) uint64 { return s.DialOther }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dialled string
				s := &Server{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					if network != "tcp" {
						t.Errorf("network %q", network)
					}
					dialled = address
					if tt.dialErr != nil {
						return nil, tt.dialErr
					}
					return dialEcho(ctx, network, address)
				}}
				if tt.password {
					s.Username, s.Password = "user", "pass"
				}
				l, stop := serveMemory(t, s)
				defer stop()
				d := dialog{t, l.connect(t)}
				defer d.conn.Close()
				for i := 0; i < len(tt.steps); i += 2 {
					d.send(tt.steps[i])
					d.want(tt.steps[i+1])
				}
				if last := tt.steps[len(tt.steps)-1]; strings.HasSuffix(last, ok) {
					d.send("'through'")
					d.want("'through'")
				} else {
					d.wantClosed()
				}
				if dialled != tt.dialled {
					t.Errorf("dialled %q, want %q", dialled, tt.dialled)
				}
				synctest.Wait()
				if tt.stat != nil && tt.stat(s.Stats()) != 1 {
					t.Errorf("not counted as it should be: %+v", s.Stats())
				}
			})
		})
	}
}

// What a client sends right behind its request belongs to the stream, however
// much of it the server read ahead.
func TestBytesBehindTheRequest(t *testing.T) {
	for _, extra := range []int{1, 400, 5000} {
		synctest.Test(t, func(t *testing.T) {
			l, stop := serveMemory(t, &Server{Dial: dialEcho})
			defer stop()
			d := dialog{t, l.connect(t)}
			defer d.conn.Close()
			text := "'" + strings.Repeat("x", extra) + "'"
			go d.send("05 01 00 05 01 00 01 0a090003 0050 " + text)
			d.want("05 00 05 00 00 01 00000000 0000 " + text)
		})
	}
}

func TestReplyNamesTheLocalAddress(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"10.9.0.2:4660", "05 00 00 01 0a090002 1234"},
		{"[::ffff:10.9.0.2]:4660", "05 00 00 01 0a090002 1234"},
		{"[fd00:9::2]:4660", "05 00 00 04 fd000009000000000000000000000002 1234"},
	} {
		local, err := net.ResolveTCPAddr("tcp", tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			l, stop := serveMemory(t, &Server{Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				c, err := dialEcho(ctx, n, a)
				return withLocal{Conn: c, local: local}, err
			}})
			defer stop()
			d := dialog{t, l.connect(t)}
			defer d.conn.Close()
			d.send("05 01 00 05 01 00 01 0a090003 0050")
			d.want("05 00" + tt.want)
		})
	}
}

// withLocal cannot be a key of a map; the server must not use it as one.
type withLocal struct {
	net.Conn
	local *net.TCPAddr
	_     []byte
}

func (c withLocal) LocalAddr() net.Addr { return c.local }

type timeoutError struct{}

func (timeoutError) Error() string   { return "slow" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestReplyTo(t *testing.T) {
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, tt := range []struct {
		err    error
		reply  reply
		status int
	}{
		{op(syscall.ECONNREFUSED), 5, 502},
		{op(syscall.EHOSTUNREACH), 4, 502},
		{op(syscall.EHOSTDOWN), 4, 502},
		{op(syscall.ENETUNREACH), 3, 502},
		{op(syscall.ENETDOWN), 3, 502},
		{op(syscall.ETIMEDOUT), 6, 504},
		{op(syscall.EAFNOSUPPORT), 8, 502},
		{op(syscall.EACCES), 2, 403},
		{op(syscall.ECONNRESET), 1, 502},
		{fmt.Errorf("rule 7: %w", ErrNotAllowed), 2, 403},
		{fmt.Errorf("%w: %w", ErrNotAllowed, syscall.ECONNREFUSED), 2, 403},
		{os.ErrPermission, 2, 403},
		{context.DeadlineExceeded, 6, 504},
		{os.ErrDeadlineExceeded, 6, 504},
		{&net.OpError{Op: "dial", Err: timeoutError{}}, 6, 504},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, syscall.ENETUNREACH), 3, 502},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, 4, 502},
		{&net.DNSError{Err: "no answer", IsTimeout: true}, 6, 504},
		{&net.DNSError{Err: "server misbehaving"}, 1, 502},
		{context.Canceled, 1, 502},
		{errors.New("connection refused"), 1, 502},
	} {
		if got := replyTo(tt.err); got != tt.reply || got.status() != tt.status {
			t.Errorf("%v: reply %d, status %d; want %d and %d", tt.err, got, got.status(), tt.reply, tt.status)
		}
	}
}

func TestAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{
			Dial: func(context.Context, string, string) (net.Conn, error) {
				t.Error("dialled")
				return nil, syscall.ECONNREFUSED
			},
			Allow: func(_ context.Context, address string) error {
				return fmt.Errorf("no way to %s: %w", address, syscall.ECONNREFUSED)
			},
		}
		l, stop := serveMemory(t, s)
		defer stop()
		d := dialog{t, l.connect(t)}
		d.send("05 01 00 05 01 00 01 0a090003 0050")
		d.want("05 00 05 02 00 01 00000000 0000")
		d.wantClosed()
		for _, request := range []string{"CONNECT 10.9.0.3:80 HTTP/1.1", "GET http://10.9.0.3/ HTTP/1.1"} {
			d := dialog{t, l.connect(t)}
			d.send("'" + request + "\r\nHost: x\r\nConnection: close\r\n\r\n'")
			d.want("'HTTP/1.1 403 Forbidden\r\n'")
			d.conn.Close()
		}
		if got := s.Stats().Denied; got != 3 {
			t.Errorf("%d denied, want 3", got)
		}
	})
}

// With a failure in the reply, bytes the client had sent on must not turn the
// reply into a reset.
func TestRefusalIsReadBesideUnreadBytes(t *testing.T) {
	addr := serveTCP(t, &Server{Dial: dialError(syscall.ECONNREFUSED)})
	for _, tt := range []struct{ send, want string }{
		{"05 01 00 05 01 00 01 0a090003 0050", "05 00 05 05 00 01 00000000 0000"},
		{"05 01 00 05 02 00 01 0a090003 0050", "05 00 05 07 00 01 00000000 0000"},
		{"05 01 00 05 01 00 02", "05 00 05 08 00 01 00000000 0000"},
		{"05 01 02", "05 ff"},
	} {
		for range 10 {
			d := dialog{t, dialTCP(t, addr)}
			d.send(tt.send + "'" + strings.Repeat("x", 20000) + "'")
			d.want(tt.want)
			d.conn.(*net.TCPConn).CloseWrite()
			d.wantClosed()
		}
	}
}
