package socks

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzConversation is a client that sends anything, in pieces and with pauses as the script says: each of its bytes is a
// piece of up to 32 bytes, and after it up to two minutes. Behind the proxy is a server that answers whatever it reads. In
// whatever order things come, nothing is dialled before the password was given and the rule asked, and it all ends.
func FuzzConversation(f *testing.F) {
	const (
		get  = "'GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\n"
		auth = "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"
	)
	for _, text := range []string{
		"05 01 00 05 01 00 01 0a090003 0050 'and more'",
		"05 01 02 01 04 'user' 04 'pass' 05 01 00 03 08 'web.adit' 0050 'and more'",
		"05 01 02 05 01 00 01 0a090003 0050 01 04 'user' 04 'pass'",
		"05 01 02 01 04 'user' 04 'nope' 05 01 00 01 0a090003 0050",
		get + auth + "\r\n" + get[1:] + auth + "\r\n" + get[1:] + "\r\n'",
		get + "\r\n" + get[1:] + auth + "\r\n'",
		"'CONNECT web.adit:443 HTTP/1.1\r\n" + auth + "\r\n' 16 03 01 00",
		"'POST http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nTransfer-Encoding: chunked\r\n" + auth + "\r\n5\r\nhello\r\n0\r\n\r\n'",
		"'GET http://web.adit/ HTTP/1.1\r\nHost: web.adit\r\nUpgrade: x\r\nConnection: Upgrade\r\n" + auth + "\r\n'",
	} {
		for _, script := range []string{"", "\x00", "\x1f\x1f\x3f\xff", "\x05\xe0\x01\x82"} {
			f.Add(unwrite(f, text), []byte(script), true)
			f.Add(unwrite(f, text), []byte(script), false)
		}
	}
	f.Fuzz(func(t *testing.T, data, script []byte, password bool) {
		if len(data) > 4096 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			var allowed []string
			s := &Server{IdleTimeout: 5 * time.Minute}
			s.Allow = func(_ context.Context, address string) error {
				allowed = append(allowed, address)
				return nil
			}
			s.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
				if !slices.Contains(allowed, address) {
					t.Errorf("dialled %q without asking the rule", address)
				}
				if password && !bytes.Contains(data, []byte("\x04user\x04pass")) && !bytes.Contains(data, []byte("dXNlcjpwYXNz")) {
					t.Errorf("dialled %q without the password", address)
				}
				ours, theirs := net.Pipe()
				go answer(theirs)
				return ours, nil
			}
			if password {
				s.Username, s.Password = "user", "pass"
			}
			l, stop := serveMemory(t, s)
			c := l.connect(t)
			// net/http holds a mutex while it reads a body, and a goroutine that waits for a mutex stops the clock of the bubble: no
			// timeout would end a request whose body does not. Such a client does not pause, and leaves.
			lower := bytes.ToLower(data)
			stays := !bytes.Contains(lower, []byte("chunked")) && !bytes.Contains(lower, []byte("content-length"))
			start := time.Now()
			var paused time.Duration
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				if !stays {
					defer c.Close()
				}
				for i, rest := 0, data; len(rest) > 0; i++ {
					step := byte(0x1f)
					if len(script) > 0 {
						step = script[i%len(script)]
					}
					n := min(int(step&0x1f)+1, len(rest))
					if _, err := c.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
					if pause := time.Duration(step>>5) * 17 * time.Second; stays {
						time.Sleep(pause)
						paused += pause
					}
				}
			}()
			io.Copy(io.Discard, c) // the client that stays must be ended by the server
			took := time.Since(start)
			c.Close()
			<-sent
			if !stays {
				time.Sleep(time.Second) // net/http gives a client half of one to read its last answer
			}
			if took > paused+10*time.Minute {
				t.Errorf("a client that paused for %v was kept for %v", paused, took)
			}
			synctest.Wait()
			if got := s.Stats(); got.Active != 0 {
				t.Errorf("%+v", got)
			}
			stop()
		})
	})
}

// answer reads what comes, and says the same to all of it.
func answer(c net.Conn) {
	defer c.Close()
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}
