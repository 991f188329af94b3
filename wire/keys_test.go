package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/curve25519"
)

func TestParseKeys(t *testing.T) {
	pub := newTestLocal(t, 1).Public()
	b64, hx := pub.String(), hex.EncodeToString(pub[:])
	stray := b64[:42] + string(b64[42]+1) + "=" // sets a bit that no byte holds
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"base64", b64, true},
		{"base64 with a line end", b64 + "\n", true},
		{"hex", hx, true},
		{"upper-case hex", strings.ToUpper(hx), true},
		{"empty", "", false},
		{"base64 without padding", b64[:43], false},
		{"base64 with stray bits", stray, false},
		{"base64 with a line end inside", b64[:20] + "\n" + b64[21:], false},
		{"base64 of 31 bytes", base64.StdEncoding.EncodeToString(pub[:31]), false},
		{"base64 of 33 bytes", base64.StdEncoding.EncodeToString(append(pub[:], 0)), false},
		{"hex too short", hx[:62], false},
		{"hex too long", hx + "00", false},
		{"not hex", hx[:63] + "g", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParsePublicKey(c.in)
			if (err == nil) != c.ok || c.ok && k != pub {
				t.Errorf("public: %v, %v", k, err)
			}
			priv, err := ParsePrivateKey(c.in)
			if (err == nil) != c.ok || c.ok && priv != PrivateKey(pub) {
				t.Errorf("private: %v", err)
			}
			psk, err2 := ParsePresharedKey(c.in)
			if (err2 == nil) != c.ok || c.ok && psk != PresharedKey(pub) {
				t.Errorf("pre-shared: %v", err2)
			}
			if err != nil && len(c.in) > 0 && strings.Contains(err.Error()+err2.Error(), c.in[:8]) {
				t.Errorf("error quotes the secret: %v", err)
			}
		})
	}
}

func TestZeroSecretsAreRefused(t *testing.T) {
	zero := strings.Repeat("0", 64)
	if _, err := ParsePrivateKey(zero); err == nil {
		t.Error("private key")
	}
	if _, err := ParsePresharedKey(zero); err == nil {
		t.Error("pre-shared key")
	}
	if _, err := NewLocal(PrivateKey{}); err == nil {
		t.Error("NewLocal")
	}
	if _, err := (PrivateKey{}).MarshalPEM(); err == nil {
		t.Error("MarshalPEM")
	}
	if _, err := GeneratePrivateKey(bytes.NewReader(make([]byte, 32))); err == nil {
		t.Error("GeneratePrivateKey")
	}
}

func TestPublicKeyText(t *testing.T) {
	in := map[PublicKey]PublicKey{newTestLocal(t, 1).Public(): newTestLocal(t, 2).Public()}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[PublicKey]PublicKey
	if err := json.Unmarshal(b, &out); err != nil || fmt.Sprint(in) != fmt.Sprint(out) {
		t.Fatalf("%s: %v, %v", b, out, err)
	}
	if err := new(PublicKey).UnmarshalText([]byte("x")); err == nil {
		t.Error("nonsense was taken for a key")
	}
}

// leakCheck fails when out shows any run of the secret's bytes in hex, decimal or base64.
func leakCheck(t *testing.T, how, out string, secret []byte) {
	t.Helper()
	run := secret[8:12]
	for _, form := range []string{
		fmt.Sprintf("%x", run), fmt.Sprintf("%X", run), fmt.Sprintf("%d %d %d %d", run[0], run[1], run[2], run[3]),
		fmt.Sprintf("%d,%d,%d,%d", run[0], run[1], run[2], run[3]), fmt.Sprintf("%#x, %#x", run[0], run[1]),
		string(run), base64.StdEncoding.EncodeToString(secret)[12:16],
	} {
		if strings.Contains(out, form) {
			t.Errorf("%s shows the secret: %s", how, out)
			return
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	priv, err := GeneratePrivateKey(newStream(1))
	if err != nil {
		t.Fatal(err)
	}
	l, _ := NewLocal(priv)
	psk := PresharedKey(priv)
	keys := Keys{Send: SessionKey(priv), Receive: SessionKey(priv)}
	// An ephemeral key or cookie secret that is the private key shows in the same way.
	ini, _, err := l.Initiate(bytes.NewReader(priv[:]), newTestLocal(t, 2).Public(), psk, 1, start, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, own, err := l.Initiate(nil, l.Public(), psk, 1, start, nil)
	if err != nil {
		t.Fatal(err)
	}
	req, err := l.ReadInitiation(own)
	if err != nil {
		t.Fatal(err)
	}
	jar := NewCookieJar(l)
	jar.secrets[0] = cookieSecret{key: priv, born: start, set: true}
	cookie := NewCookie(l.Public())
	copy(cookie.value[:], priv[:])
	sealer, opener := keys.NewSealer(), keys.NewOpener()
	for _, v := range []any{
		priv, &priv, psk, &psk, keys, &keys, keys.Send, l, *l, ini, req, jar, cookie, sealer, opener,
		struct{ K PrivateKey }{priv}, struct{ P *Local }{l}, []PresharedKey{psk}, map[string]SessionKey{"k": keys.Send},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"} {
			leakCheck(t, fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v), priv[:])
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", v)
		leakCheck(t, fmt.Sprintf("slog text of %T", v), text.String(), priv[:])
		leakCheck(t, fmt.Sprintf("slog JSON of %T", v), js.String(), priv[:])
	}
	if s := fmt.Sprintf("%v %x %#v %s", priv, psk, keys.Send, priv.String()); s != "(secret) (secret) (secret) (secret)" {
		t.Errorf("secrets print as %s", s)
	}
}

// A point is of low order if some multiple by 8 is zero, which is what X25519 itself says.
func TestLowOrderKeys(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	encode := func(n *big.Int) (k PublicKey) {
		n.FillBytes(k[:])
		for i := range 16 {
			k[i], k[31-i] = k[31-i], k[i]
		}
		return k
	}
	scalar := bytes.Repeat([]byte{5}, 32)
	oracle := func(k PublicKey) bool {
		_, err := curve25519.X25519(scalar, k[:])
		return err != nil
	}
	for _, k := range lowOrderKeys {
		if !oracle(k) || !canonical(k) {
			t.Errorf("%x is listed and is not of low order, or not canonical", k)
		}
		k[31] |= 0x80
		if err := PublicKey(k).Check(); !errors.Is(err, ErrKey) {
			t.Errorf("%x: %v", k, err)
		}
	}
	for d := int64(-40); d < 40; d++ {
		n := new(big.Int).Add(p, big.NewInt(d))
		if n.BitLen() > 256 {
			continue
		}
		k := encode(n)
		want := d >= 0 || oracle(k)
		if got := k.Check() != nil; got != want {
			t.Errorf("p%+d: refused %v, want %v", d, got, want)
		}
		if d >= 0 {
			k = encode(big.NewInt(d))
			if got := k.Check() != nil; got != oracle(k) {
				t.Errorf("%d: refused %v, want %v", d, got, oracle(k))
			}
		}
	}
	// A key that differs from the prime in one byte of the middle only.
	for i := 1; i < 31; i++ {
		k := encode(p)
		k[i] = 0xfe
		if !canonical(k) {
			t.Errorf("smaller than the prime in byte %d, and not canonical", i)
		}
	}
	if _, err := ParsePublicKey(strings.Repeat("0", 64)); !errors.Is(err, ErrKey) {
		t.Errorf("zero key parsed: %v", err)
	}
}

func FuzzPublicKeyCheck(f *testing.F) {
	for _, k := range lowOrderKeys {
		f.Add(k[:])
	}
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 32 {
			return
		}
		be := make([]byte, 32)
		for i := range b {
			be[31-i] = b[i]
		}
		want := new(big.Int).SetBytes(be).Cmp(p) < 0
		if got := canonical([32]byte(b)); got != want {
			t.Errorf("canonical(%x) = %v", b, got)
		}
	})
}

func TestPEM(t *testing.T) {
	k, err := GeneratePrivateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParsePrivateKeyPEM(b); err != nil || got != k {
		t.Fatalf("round trip: %v", err)
	}
	if got, err := ParsePrivateKeyPEM(append([]byte("a note\n"), b...)); err != nil || got != k {
		t.Fatalf("with a note before it: %v", err)
	}
	pkcs8 := func(key any, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	}
	_, ed, err := ed25519.GenerateKey(nil)
	zero, zerr := ecdh.X25519().NewPrivateKey(make([]byte, 32))
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "no PEM block"},
		{"text", []byte("hello"), "no PEM block"},
		{"two keys", append(append([]byte{}, b...), b...), "something follows"},
		{"a public key", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}), "another type"},
		{"encrypted", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}), "encrypted"},
		{"nonsense", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte{1}}), "not PKCS#8"},
		{"Ed25519", pkcs8(ed, err), "want X25519"},
		{"P-256", func() []byte { p, err := ecdh.P256().GenerateKey(rand.Reader); return pkcs8(p, err) }(), "want X25519"},
		{"zero", pkcs8(zero, zerr), "all zeros"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParsePrivateKeyPEM(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func FuzzKeyText(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("0", 64))
	f.Add(newTestLocal(f, 1).Public().String())
	f.Fuzz(func(t *testing.T, s string) {
		pub, err := ParsePublicKey(s)
		if err == nil {
			again, err := ParsePublicKey(pub.String())
			if err != nil || again != pub || pub.Check() != nil {
				t.Fatalf("%q: %v, %v", s, again, err)
			}
			// One key, one base64 text.
			if trimmed := strings.TrimSpace(s); len(trimmed) == 44 && trimmed != pub.String() {
				t.Fatalf("%q is read as %v", s, pub)
			}
		}
		ParsePrivateKey(s)
		ParsePresharedKey(s)
	})
}

func FuzzPrivateKeyPEM(f *testing.F) {
	k, _ := GeneratePrivateKey(newStream(1))
	b, _ := k.MarshalPEM()
	f.Add(b)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePrivateKeyPEM(b)
		if err != nil {
			return
		}
		again, err := k.MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		if k2, err := ParsePrivateKeyPEM(again); err != nil || k2 != k {
			t.Fatalf("round trip: %v", err)
		}
	})
}
