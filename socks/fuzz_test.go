package socks

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
)

// FuzzHandshake sends a server anything, cut anywhere. It must come to an end
// within its timeouts, and dial what a reading of RFC 1928 straight from the
// bytes finds, or nothing.
func FuzzHandshake(f *testing.F) {
	for _, text := range []string{
		"05 01 00 05 01 00 01 0a090003 0050",
		"05 01 00 05 01 00 03 08 'web.adit' 0050 'more'",
		"05 02 00 02 05 01 00 04 fd000009000000000000000000000003 01bb",
		"05 01 02 01 04 'user' 04 'pass' 05 01 00 01 0a090003 0050",
		"05 01 02 01 04 'user' 04 'nope' 05 01 00 01 0a090003 0050",
		"05 00", "05 01 00 05 02 00 01", "05 01 00 05 03 00 01 00000000 0000",
		"04 01 0050 0a090003 00", "16 03 01",
		"'CONNECT web.adit:443 HTTP/1.1\r\n\r\n'",
		"'GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\n\r\n'",
		"'POST http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'",
	} {
		for _, password := range []bool{false, true} {
			f.Add(unwrite(f, text), uint8(3), password)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint8, password bool) {
		synctest.Test(t, func(t *testing.T) {
			var dialled []string
			s := &Server{Dial: func(_ context.Context, _, address string) (net.Conn, error) {
				dialled = append(dialled, address)
				return nil, syscall.ECONNREFUSED
			}}
			if password {
				s.Username, s.Password = "user", "pass"
			}
			l, stop := serveMemory(t, s)
			c := l.connect(t)
			go func() {
				for rest := data; len(rest) > 0; {
					n := min(int(piece)+1, len(rest))
					if _, err := c.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			io.Copy(io.Discard, c) // the client stays; the server must end it
			c.Close()
			stop()

			if len(data) > 0 && 'A' <= data[0] && data[0] <= 'Z' {
				return // net/http's reading; that it ends is what is tested
			}
			want := destinationOf(data, password)
			switch {
			case want == "" && len(dialled) > 0:
				t.Errorf("% x: dialled %q, want no dial", data, dialled)
			case want != "" && (len(dialled) != 1 || dialled[0] != want):
				t.Errorf("% x: dialled %q, want %q", data, dialled, want)
			}
		})
	})
}

// destinationOf reads a conversation that the client has sent in one piece:
// RFC 1928 and 1929 as plainly as they can be read.
func destinationOf(b []byte, password bool) string {
	take := func(n int) []byte {
		if n > len(b) {
			n, b = 0, nil
			return nil
		}
		head := b[:n:n]
		b = b[n:]
		return head
	}
	takeByte := func() int {
		if h := take(1); h != nil {
			return int(h[0])
		}
		return -1
	}
	if takeByte() != 5 {
		return ""
	}
	n := takeByte()
	if n < 0 || n > len(b) {
		return ""
	}
	method := byte(0)
	if password {
		method = 2
	}
	offered := false
	for _, m := range take(n) {
		offered = offered || m == method
	}
	if !offered {
		return ""
	}
	if password {
		if takeByte() != 1 {
			return ""
		}
		for _, want := range []string{"user", "pass"} {
			if n := takeByte(); n < 0 || string(take(n)) != want {
				return ""
			}
		}
	}
	if takeByte() != 5 || takeByte() != 1 || takeByte() < 0 {
		return ""
	}
	var host string
	switch takeByte() {
	case 1:
		a, ok := netip.AddrFromSlice(take(4))
		if !ok {
			return ""
		}
		host = a.String()
	case 4:
		a, ok := netip.AddrFromSlice(take(16))
		if !ok {
			return ""
		}
		host = a.Unmap().String()
	case 3:
		n := takeByte()
		if n <= 0 || n > len(b) {
			return ""
		}
		host = string(take(n))
		for _, c := range []byte(host) {
			if c <= ' ' || c >= 0x7f {
				return ""
			}
		}
	default:
		return ""
	}
	port := take(2)
	if port == nil || port[0] == 0 && port[1] == 0 {
		return ""
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1])))
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "" // a name with brackets in it
	}
	return address
}
