package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/proxy"

	"github.com/adit-overlay/adit/internal/citest"
)

func TestGoClient(t *testing.T) {
	far := listenTCP(t)
	go func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	s := &Server{Username: "user", Password: "pass", Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
		switch a {
		case "web.adit:80", "[fd00:9::3]:80":
			return dialTo(far.Addr().String())(ctx, n, a)
		}
		return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
	}}
	addr := serveTCP(t, s)
	for _, tt := range []struct {
		target string
		auth   *proxy.Auth
		want   string
	}{
		{"web.adit:80", &proxy.Auth{User: "user", Password: "pass"}, ""},
		{"[fd00:9::3]:80", &proxy.Auth{User: "user", Password: "pass"}, ""},
		{"nowhere.adit:80", &proxy.Auth{User: "user", Password: "pass"}, "network unreachable"},
		{"web.adit:80", &proxy.Auth{User: "user", Password: "word"}, "authentication failed"},
		{"web.adit:80", nil, "no acceptable authentication"},
	} {
		d, err := proxy.SOCKS5("tcp", addr, tt.auth, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial("tcp", tt.target)
		if err != nil {
			if tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.target, err, tt.want)
			}
			continue
		}
		io.WriteString(c, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" || tt.want != "" {
			t.Errorf("%s: %q, %v, want %q", tt.target, got, err, tt.want)
		}
		c.Close()
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		citest.Skipf(t, "needs curl")
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "down the mine")
	}))
	defer srv.Close()
	const anyFailure = -1 // where versions of curl differ
	var dialled atomic.Value
	dial := func(ctx context.Context, n, a string) (net.Conn, error) {
		dialled.Store(a)
		if strings.HasSuffix(a, ":81") {
			return nil, syscall.ECONNREFUSED
		}
		return dialTo(srv.Listener.Addr().String())(ctx, n, a)
	}
	open := serveTCP(t, &Server{Dial: dial})
	locked := serveTCP(t, &Server{Dial: dial, Username: "user", Password: "pass"})
	for _, tt := range []struct {
		name    string
		args    []string
		exit    int
		dialled string
	}{
		{"SOCKS5, name to the proxy", []string{"--socks5-hostname", open, "http://web.adit/"}, 0, "web.adit:80"},
		{"SOCKS5, name resolved by curl", []string{"--socks5", open, "--resolve", "web.adit:80:10.9.0.3", "http://web.adit/"}, 0, "10.9.0.3:80"},
		{"SOCKS5, IPv6", []string{"--socks5-hostname", open, "-g", "http://[fd00:9::3]/"}, 0, "[fd00:9::3]:80"},
		{"SOCKS5, password", []string{"--socks5-hostname", locked, "--proxy-user", "user:pass", "http://web.adit/"}, 0, "web.adit:80"},
		{"SOCKS5, wrong password", []string{"--socks5-hostname", locked, "--proxy-user", "user:word", "http://web.adit/"}, 97, ""},
		{"SOCKS5, no password", []string{"--socks5-hostname", locked, "http://web.adit/"}, 97, ""},
		{"SOCKS5, refused", []string{"--socks5-hostname", open, "http://web.adit:81/"}, 97, "web.adit:81"},
		{"HTTP", []string{"-x", "http://" + open, "http://web.adit/"}, 0, "web.adit:80"},
		{"HTTP, password", []string{"-x", "http://user:pass@" + locked, "http://web.adit/"}, 0, "web.adit:80"},
		{"HTTP, wrong password", []string{"-x", "http://user:word@" + locked, "http://web.adit/"}, 22, ""},
		{"CONNECT", []string{"-x", "http://" + open, "--proxytunnel", "http://web.adit/"}, 0, "web.adit:80"},
		{"CONNECT, password when asked", []string{"-x", "http://user:pass@" + locked, "--proxy-anyauth", "--proxytunnel", "http://web.adit/"}, 0, "web.adit:80"},
		{"CONNECT, refused", []string{"-x", "http://" + open, "--proxytunnel", "http://web.adit:81/"}, anyFailure, "web.adit:81"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dialled.Store("")
			cmd := exec.Command(curl, append([]string{"-q", "-sS", "--fail", "--max-time", "30", "--noproxy", ""}, tt.args...)...)
			cmd.Env = []string{"PATH=/nonexistent"}
			out, err := cmd.CombinedOutput()
			exit := 0
			var failed *exec.ExitError
			if errors.As(err, &failed) {
				exit = failed.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if exit != tt.exit && (tt.exit != anyFailure || exit == 0) {
				t.Errorf("curl ended with %d, want %d: %s", exit, tt.exit, out)
			}
			if exit == 0 && string(out) != "down the mine" {
				t.Errorf("curl printed %q", out)
			}
			if got := dialled.Load(); got != tt.dialled {
				t.Errorf("dialled %q, want %q", got, tt.dialled)
			}
		})
	}
}
