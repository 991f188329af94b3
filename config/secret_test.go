package config

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A configuration with every secret there is, printed in every way there is, tells none of them.
func TestConfigurationsPrintNoSecret(t *testing.T) {
	const password = "not-this-one"
	socks := Socks{Listen: "127.0.0.1:1080", Username: "me", Password: password}
	p := Peer{PrivateKey: selfKey, Socks: &socks, Relays: []RelayEndpoint{{}}, Peers: []Remote{{}}}
	copy(p.PresharedKey[:], selfKey[:])
	p.Relays[0].PresharedKey, p.Peers[0].PresharedKey = p.PresharedKey, p.PresharedKey
	r := Relay{PrivateKey: selfKey, PresharedKey: p.PresharedKey}
	pem, err := selfKey.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{password, hex.EncodeToString([]byte(password)), hex.EncodeToString(selfKey[:]), strings.Split(string(pem), "\n")[1],
		strings.Trim(fmt.Sprint(selfKey[:]), "[]"), fmt.Sprintf("%#v", selfKey[:])[7:], fmt.Sprint([]byte(password))}
	for _, v := range []any{p, &p, r, &r, File{Peer: &p}, socks, &socks, struct{ S Socks }{socks}, []*Socks{&socks},
		[]*Remote{&p.Peers[0]}, []*RelayEndpoint{&p.Relays[0]}} {
		texts := []string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", v)
		direct, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, out := range append(texts, text.String(), js.String(), string(direct)) {
			for _, secret := range secrets {
				if strings.Contains(strings.ToLower(out), strings.ToLower(secret)) {
					t.Errorf("%T tells %q: %s", v, secret, out)
				}
			}
		}
	}
}

// A file with a password in it is a secret, as key files are; one without may be read by anybody.
func TestPasswordInAFileOthersCanReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing about access on Windows")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "self.key"), []byte(strings.Repeat("11", 32)), 0o600)
	path := filepath.Join(dir, "adit.yaml")
	with := leastPeer + "\nsocks: {username: me, password: not-this-one}\n"
	for _, tt := range []struct {
		text string
		mode os.FileMode
		good bool
	}{
		{with, 0o600, true}, {with, 0o400, true}, {with, 0o640, false}, {with, 0o604, false}, {with, 0o644, false},
		{leastPeer + "\nsocks: {}\n", 0o644, true},
	} {
		os.Remove(path)
		write(t, path, []byte(tt.text), 0o600)
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadPeer(path)
		if (err == nil) != tt.good {
			t.Errorf("mode %04o: %v", tt.mode, err)
		}
		if err != nil && (strings.Contains(err.Error(), "not-this-one") || !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("%v", err)
		}
	}
}

// A link is judged by the file it leads to, whatever its own mode says.
func TestKeyFileBehindALinkIsJudged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing about access on Windows")
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "self.key"), filepath.Join(dir, "link.key")
	write(t, file, []byte(strings.Repeat("11", 32)), 0o600)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPrivateKey(link); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPrivateKey(link); err == nil {
		t.Error("a key that the group can read was taken by way of a link")
	}
}
