package peer_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/socks"
	"github.com/adit-overlay/adit/wire"
)

// A peer lives its life with everything logged that can be: it starts, talks, is asked with right and wrong
// passwords, meets a stranger, fails, and ends. Of its keys and its password nothing is told, by log, error, status or
// what it is printed as.
func TestNothingSecretIsTold(t *testing.T) {
	const password, wrongPassword = "correct-horse", "battery-staple"
	psk := wire.PresharedKey(newKey(t))
	var out lockedBuffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	text := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))

	l := newLab(t, inMemory, "laptop", "web")
	web := l.start("web", func(c *peer.Config) { c.Logger, c.PresharedKey = text, psk })
	var cfg peer.Config
	laptop := l.start("laptop", func(c *peer.Config) {
		c.Logger, c.PresharedKey = log, psk
		c.Socks = &config.Socks{Listen: "127.0.0.1:0", Username: "me", Password: password}
		cfg = *c
	})
	pages := listen(t, web, ":80")
	exchangeAccepted(t, laptop, pages)

	front := &socks.Server{Dial: laptop.DialContext, Username: "me", Password: password, Logger: log}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { front.Serve(proxy) })
	for _, word := range []string{password, wrongPassword} {
		for _, hello := range []string{
			"\x05\x01\x02\x01\x02me" + string(rune(len(word))) + word + "\x05\x01\x00\x03\x0bnobody.adit\x00\x50",
			"GET http://nobody.adit/ HTTP/1.0\r\nProxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+word)) + "\r\n\r\n",
		} {
			c, err := net.Dial("tcp", proxy.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, hello)
			answer, _ := io.ReadAll(c)
			out.Write(answer)
			c.Close()
		}
	}
	front.Close()
	serving.Wait()

	// One who is no member, and one whose pre-shared key is another.
	stranger := startPeer(t, peer.Config{
		Peer: config.Peer{
			PrivateKey: newKey(t), Addresses: addresses(7), Mode: config.ModeNetstack,
			Relays: []config.RelayEndpoint{{PublicKey: l.key.Public(), Endpoint: relayAddr.String()}},
		}, Logger: text, NoUDP: true,
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, failure := stranger.DialContext(ended, "tcp", "10.9.0.3:80")
	_, startFailure := peer.Start(t.Context(), peer.Config{Peer: config.Peer{PrivateKey: cfg.PrivateKey, Mode: "none"}})
	fmt.Fprintln(&out, failure, startFailure, errors.Join(failure, startFailure))

	for _, v := range []any{laptop.Status(), l.relay.Status(), cfg, &cfg, front, laptop.PublicKey()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if js, err := json.Marshal(v); err == nil {
			out.Write(js)
		}
	}
	laptop.Close()
	web.Close()

	told := strings.ToLower(out.String())
	if !strings.Contains(told, "session") || !strings.Contains(told, "password") {
		t.Error("hardly anything is logged: this test shows nothing")
	}
	secrets := map[string][]byte{
		"the password": []byte(password), "a wrong password": []byte(wrongPassword), "the pre-shared key": psk[:],
		"the private key": cfg.PrivateKey[:], "the relay's private key": l.key[:], "credentials": []byte("me:" + password),
	}
	for what, secret := range secrets {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), strings.Trim(fmt.Sprint(secret), "[]"),
		} {
			if strings.Contains(told, strings.ToLower(form)) {
				t.Errorf("%s is told", what)
			}
		}
	}
}

func exchangeAccepted(t *testing.T, from *peer.Peer, l net.Listener) {
	t.Helper()
	near := dial(t, from, "tcp", "web.adit:80")
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, near, far, "hello")
	near.Close()
	far.Close()
}

// lockedBuffer is a buffer that several loggers write into.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
