package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/flynn/noise"
)

// start is the time at which all tests begin.
var start = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func newTestLocal(t testing.TB, seed byte) *Local {
	t.Helper()
	k, err := GeneratePrivateKey(newStream(seed))
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(k)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// initiate makes an initiation of a to b with index 11.
func initiate(t testing.TB, a, b *Local, psk PresharedKey, cert string) (*Initiation, []byte) {
	t.Helper()
	ini, msg, err := a.Initiate(newStream(100), b.Public(), psk, 11, start, []byte(cert))
	if err != nil {
		t.Fatal(err)
	}
	return ini, msg
}

// respond answers msg at b with index 22.
func respond(t testing.TB, b *Local, msg []byte, psk PresharedKey) ([]byte, Keys) {
	t.Helper()
	req, err := b.ReadInitiation(msg)
	if err != nil {
		t.Fatal(err)
	}
	m2, keys, err := req.Respond(newStream(101), psk, 22)
	if err != nil {
		t.Fatal(err)
	}
	return m2, keys
}

// wantSession fails unless data sealed at each end opens at the other.
func wantSession(t testing.TB, a, b Keys) {
	t.Helper()
	if a.Send != b.Receive || a.Receive != b.Send || a.Send == a.Receive {
		t.Fatal("keys do not match")
	}
	if a.LocalIndex != b.RemoteIndex || a.RemoteIndex != b.LocalIndex {
		t.Fatal("indexes do not match")
	}
	d := seal(t, a.NewSealer(), 0, "x")
	if r, ok := ReceiverOf(d); !ok || r != b.LocalIndex {
		t.Fatalf("data is for index %d", r)
	}
	if _, err := b.NewOpener().Open(make([]byte, 1), d, new(Nonce)); err != nil {
		t.Fatal(err)
	}
}

// resign makes MAC1 right again after msg was tampered with, as anybody can who knows the receiver's public key.
func resign(msg []byte, receiver PublicKey) []byte {
	return sealMACs(bytes.Clone(msg[:len(msg)-macsLen]), receiver)
}

func TestHandshake(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	for _, c := range []struct {
		name string
		psk  PresharedKey
		cert string
	}{
		{"plain", PresharedKey{}, ""},
		{"with a pre-shared key", PresharedKey{7}, ""},
		{"with the longest certificate", PresharedKey{}, string(bytes.Repeat([]byte{0xce}, MaxCertificate))},
	} {
		t.Run(c.name, func(t *testing.T) {
			ini, m1, err := a.Initiate(nil, b.Public(), c.psk, 11, start, []byte(c.cert))
			if err != nil {
				t.Fatal(err)
			}
			if KindOf(m1) != KindInitiation || len(m1) != InitiationLen+len(c.cert) || !b.CheckMAC1(m1) || a.CheckMAC1(m1) {
				t.Fatal("initiation is not well-formed")
			}
			if pub := a.Public(); bytes.Contains(m1, pub[:]) {
				t.Fatal("initiation shows the static key")
			}
			req, err := b.ReadInitiation(m1)
			if err != nil {
				t.Fatal(err)
			}
			if req.Remote != a.Public() || req.RemoteIndex != 11 || req.Timestamp != TimestampAt(start) || string(req.Certificate) != c.cert {
				t.Fatalf("request %v %v %v %q", req.Remote, req.RemoteIndex, req.Timestamp, req.Certificate)
			}
			m2, kb, err := req.Respond(nil, c.psk, 22)
			if err != nil {
				t.Fatal(err)
			}
			if KindOf(m2) != KindResponse || len(m2) > len(m1) || !a.CheckMAC1(m2) || b.CheckMAC1(m2) {
				t.Fatal("response is not well-formed")
			}
			ka, err := ini.Finish(m2)
			if err != nil {
				t.Fatal(err)
			}
			wantSession(t, ka, kb)
			if _, err := ini.Finish(m2); !errors.Is(err, ErrUsed) {
				t.Fatalf("second Finish: %v", err)
			}
			if _, _, err := req.Respond(nil, c.psk, 23); !errors.Is(err, ErrUsed) {
				t.Fatalf("second Respond: %v", err)
			}
		})
	}
}

// Two handshakes between the same peers, even one initiation read twice, never yield the same keys.
func TestKeysAreFresh(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	_, m1 := initiate(t, a, b, PresharedKey{}, "")
	seen := map[SessionKey]bool{}
	for range 5 {
		req, err := b.ReadInitiation(m1)
		if err != nil {
			t.Fatal(err)
		}
		_, k, err := req.Respond(nil, PresharedKey{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if seen[k.Send] || seen[k.Receive] {
			t.Fatal("a key came twice")
		}
		seen[k.Send], seen[k.Receive] = true, true
	}
}

func TestPresharedKeyDiffers(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	ini, m1 := initiate(t, a, b, PresharedKey{1}, "")
	m2, kb := respond(t, b, m1, PresharedKey{2})
	if _, err := ini.Finish(m2); !errors.Is(err, ErrHandshake) {
		t.Fatalf("Finish: %v", err)
	}
	// Nothing the initiator could send opens; and the right key still gets it a session.
	if _, err := kb.NewOpener().Open(make([]byte, 10), seal(t, (&Keys{}).NewSealer(), 0, "x"), new(Nonce)); !errors.Is(err, ErrTag) {
		t.Fatalf("Open: %v", err)
	}
	m2, kb = respond(t, b, m1, PresharedKey{1})
	ka, err := ini.Finish(m2)
	if err != nil {
		t.Fatal(err)
	}
	wantSession(t, ka, kb)
}

// Whatever arrives in place of the response, the true response still finishes the handshake.
func TestForgedResponsesEndNothing(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	ini, m1 := initiate(t, a, b, PresharedKey{3}, "")
	m2, kb := respond(t, b, m1, PresharedKey{3})
	for n := range m2 {
		if _, err := ini.Finish(m2[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	if _, err := ini.Finish(append(bytes.Clone(m2), 0)); !errors.Is(err, ErrMalformed) {
		t.Fatalf("one byte more: %v", err)
	}
	for i := range len(m2) - macLen {
		f := bytes.Clone(m2)
		f[i] ^= 1
		if _, err := ini.Finish(f); err == nil {
			t.Fatalf("byte %d flipped: finished", i)
		}
		if i < responsePrefix || i >= len(m2)-macsLen {
			continue // the sender index is not covered by Noise; see TestIndexIsOnlyAName
		}
		if _, err := ini.Finish(resign(f, a.Public())); !errors.Is(err, ErrHandshake) {
			t.Fatalf("byte %d flipped and MAC1 made anew: %v", i, err)
		}
	}
	for _, k := range lowOrderKeys {
		f := bytes.Clone(m2)
		copy(f[responsePrefix:], k[:])
		if _, err := ini.Finish(resign(f, a.Public())); !errors.Is(err, ErrKey) {
			t.Fatalf("ephemeral %x: %v", k[:4], err)
		}
	}
	high := bytes.Clone(m2)
	high[responsePrefix+31] |= 0x80
	if _, err := ini.Finish(resign(high, a.Public())); !errors.Is(err, ErrKey) {
		t.Fatalf("high bit set in the ephemeral key: %v", err)
	}
	other := bytes.Clone(m2)
	other[8]++
	if _, err := ini.Finish(resign(other, a.Public())); !errors.Is(err, ErrIndex) {
		t.Fatalf("for another initiation: %v", err)
	}
	stranger := newTestLocal(t, 3)
	_, m1s := initiate(t, a, stranger, PresharedKey{3}, "")
	m2s, _ := respond(t, stranger, m1s, PresharedKey{3})
	if _, err := ini.Finish(m2s); !errors.Is(err, ErrHandshake) {
		t.Fatalf("a stranger's response: %v", err)
	}

	ka, err := ini.Finish(m2)
	if err != nil {
		t.Fatalf("the true response: %v", err)
	}
	wantSession(t, ka, kb)
}

func TestForgedInitiations(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	_, m1 := initiate(t, a, b, PresharedKey{}, "cert")
	for n := range m1 {
		if _, err := b.ReadInitiation(m1[:n]); err == nil {
			t.Fatalf("cut to %d: read", n)
		}
	}
	if _, err := b.ReadInitiation(append(bytes.Clone(m1), 0)); !errors.Is(err, ErrMAC1) {
		t.Fatalf("one byte more: %v", err)
	}
	for i := range len(m1) - macLen {
		f := bytes.Clone(m1)
		f[i] ^= 1
		if _, err := b.ReadInitiation(f); err == nil {
			t.Fatalf("byte %d flipped: read", i)
		}
		if i < initiationPrefix || i >= len(m1)-macsLen {
			continue
		}
		if _, err := b.ReadInitiation(resign(f, b.Public())); !errors.Is(err, ErrHandshake) {
			t.Fatalf("byte %d flipped and MAC1 made anew: %v", i, err)
		}
	}
	if _, err := newTestLocal(t, 3).ReadInitiation(m1); !errors.Is(err, ErrMAC1) {
		t.Fatalf("for another: %v", err)
	}
	if _, err := newTestLocal(t, 3).ReadInitiation(resign(m1, newTestLocal(t, 3).Public())); !errors.Is(err, ErrHandshake) {
		t.Fatalf("passed on to another: %v", err)
	}
	for _, k := range lowOrderKeys {
		f := bytes.Clone(m1)
		copy(f[initiationPrefix:], k[:])
		if _, err := b.ReadInitiation(resign(f, b.Public())); !errors.Is(err, ErrKey) {
			t.Fatalf("ephemeral %x: %v", k[:4], err)
		}
	}
}

// An index outside Noise may be changed on the way by who can drop the message as well. Nothing but the
// name changes: the session's packets find nobody.
func TestIndexIsOnlyAName(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	_, m1 := initiate(t, a, b, PresharedKey{}, "")
	m1[7] ^= 1
	req, err := b.ReadInitiation(resign(m1, b.Public()))
	if err != nil || req.RemoteIndex != 11^1 || req.Remote != a.Public() {
		t.Fatalf("%v", err)
	}
}

// A bent DH makes public keys in forms that X25519 takes for the same or for a weak point.
type bentDH struct {
	noise.DHFunc
	bend func(pub []byte)
}

func (d bentDH) GenerateKeypair(r io.Reader) (noise.DHKey, error) {
	k, err := d.DHFunc.GenerateKeypair(r)
	if d.bend != nil {
		d.bend(k.Public)
	}
	return k, err
}

// craft makes an initiation as an attacker with a Noise library would.
func craft(t testing.TB, to PublicKey, static noise.DHKey, bendE func([]byte), payload []byte) []byte {
	t.Helper()
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(bentDH{noise.DH25519, bendE}, noise.CipherAESGCM, noise.HashSHA256),
		Random:      newStream(102), Pattern: noise.HandshakeIK, Initiator: true, Prologue: prologue,
		StaticKeypair: static, PeerStatic: to[:], PresharedKey: make([]byte, 32), PresharedKeyPlacement: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	msg := binary.BigEndian.AppendUint32([]byte{byte(KindInitiation), 0, 0, 0}, 11)
	msg, _, _, err = state.WriteMessage(msg, payload)
	if err != nil {
		t.Fatal(err)
	}
	return sealMACs(msg, to)
}

// otherForm sets the bit of a public key that X25519 ignores.
func otherForm(pub []byte) { pub[31] |= 0x80 }

// goodPayload is a timestamp and no certificate.
func goodPayload() []byte {
	ts := TimestampAt(start)
	return append(ts[:], 0, 0)
}

func bentStatic(l *Local, bend func([]byte)) noise.DHKey {
	k := noise.DHKey{Private: l.static.Private, Public: bytes.Clone(l.static.Public)}
	bend(k.Public)
	return k
}

func TestCraftedInitiations(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	low := func(i int) func([]byte) { return func(p []byte) { copy(p, lowOrderKeys[i][:]) } }
	plain := a.static
	ts := TimestampAt(start)
	for _, c := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"honest", craft(t, b.Public(), plain, nil, goodPayload()), nil},
		{"static key in another form", craft(t, b.Public(), bentStatic(a, otherForm), nil, goodPayload()), ErrKey},
		{"static key zero", craft(t, b.Public(), bentStatic(a, low(0)), nil, goodPayload()), ErrKey},
		{"static key one", craft(t, b.Public(), bentStatic(a, low(1)), nil, goodPayload()), ErrKey},
		{"static key of order 8", craft(t, b.Public(), bentStatic(a, low(2)), nil, goodPayload()), ErrKey},
		{"static key of order 8, the other", craft(t, b.Public(), bentStatic(a, low(3)), nil, goodPayload()), ErrKey},
		{"static key minus one", craft(t, b.Public(), bentStatic(a, low(4)), nil, goodPayload()), ErrKey},
		{"static key of somebody else", craft(t, b.Public(), bentStatic(a, func(p []byte) { copy(p, b.static.Public) }), nil, goodPayload()), ErrHandshake},
		{"ephemeral key in another form", craft(t, b.Public(), plain, otherForm, goodPayload()), ErrKey},
		{"ephemeral key of order 8", craft(t, b.Public(), plain, low(2), goodPayload()), ErrKey},
		{"certificate shorter than said", craft(t, b.Public(), plain, nil, append(append(ts[:12:12], 0, 5), "cert"...)), ErrMalformed},
		{"certificate longer than said", craft(t, b.Public(), plain, nil, append(append(ts[:12:12], 0, 3), "cert"...)), ErrMalformed},
		{"timestamp with too many nanoseconds", craft(t, b.Public(), plain, nil, append(append(ts[:8:8], 0x3b, 0x9a, 0xca, 0x00), 0, 0)), ErrMalformed},
		{"timestamp past the last label", craft(t, b.Public(), plain, nil, append([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0)), ErrMalformed},
		{"payload too short", craft(t, b.Public(), plain, nil, goodPayload()[:13]), ErrMalformed},
		{"payload too long", craft(t, b.Public(), plain, nil, append(goodPayload(), make([]byte, MaxCertificate+1)...)), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := b.ReadInitiation(c.msg)
			if !errors.Is(err, c.want) || (err == nil) != (req != nil) {
				t.Errorf("%v; want %v", err, c.want)
			}
		})
	}
}

func TestInitiateErrors(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	if _, _, err := a.Initiate(nil, PublicKey{}, PresharedKey{}, 1, start, nil); !errors.Is(err, ErrKey) {
		t.Errorf("zero remote: %v", err)
	}
	if _, _, err := a.Initiate(nil, b.Public(), PresharedKey{}, 1, start, make([]byte, MaxCertificate+1)); err == nil {
		t.Error("long certificate")
	}
	empty := bytes.NewReader(nil)
	if _, _, err := a.Initiate(empty, b.Public(), PresharedKey{}, 1, start, nil); !errors.Is(err, io.EOF) {
		t.Errorf("no randomness: %v", err)
	}
	_, m1 := initiate(t, a, b, PresharedKey{}, "")
	req, err := b.ReadInitiation(m1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := req.Respond(empty, PresharedKey{}, 1); !errors.Is(err, io.EOF) {
		t.Errorf("no randomness to respond: %v", err)
	}
}

func TestWipeInitiation(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	ini, m1 := initiate(t, a, b, PresharedKey{}, "")
	m2, _ := respond(t, b, m1, PresharedKey{})
	e := ini.state.LocalEphemeral().Private
	ini.Wipe()
	ini.Wipe()
	if !bytes.Equal(e, make([]byte, 32)) {
		t.Error("ephemeral key is still there")
	}
	if bytes.Equal(a.static.Private, make([]byte, 32)) {
		t.Error("static key is not")
	}
	if _, err := ini.Finish(m2); !errors.Is(err, ErrUsed) {
		t.Errorf("Finish: %v", err)
	}
}

func TestTimestamp(t *testing.T) {
	now := TimestampAt(start)
	for _, c := range []struct {
		d    time.Duration
		want bool
	}{{time.Nanosecond, true}, {time.Hour, true}, {0, false}, {-time.Nanosecond, false}, {-1000 * time.Hour, false}, {400 * time.Nanosecond, true}} {
		if got := TimestampAt(start.Add(c.d)).After(now); got != c.want {
			t.Errorf("%v later is After: %v", c.d, got)
		}
	}
	for _, u := range []time.Time{start, time.Unix(0, 0), time.Unix(-5, 7), time.Date(2500, 1, 1, 0, 0, 0, 999999999, time.UTC)} {
		if s := TimestampAt(u); !s.Time().Equal(u) || !s.valid() || !s.After(Timestamp{}) {
			t.Errorf("%v comes back as %v", u, s.Time())
		}
	}
	// The label of 1970-01-01 00:00:10 TAI, by the definition of TAI64.
	if got, want := TimestampAt(time.Unix(0, 0)), (Timestamp{0x40, 7: 10}); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

func FuzzReadInitiation(f *testing.F) {
	a, b := newTestLocal(f, 1), newTestLocal(f, 2)
	_, m1 := initiate(f, a, b, PresharedKey{}, "")
	f.Add(m1)
	_, m1 = initiate(f, a, b, PresharedKey{}, "cert")
	f.Add(m1)
	f.Add(craft(f, b.Public(), bentStatic(a, otherForm), nil, goodPayload()))
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, m := range [][]byte{msg, nil} {
			if m == nil { // past MAC1
				if len(msg) < macsLen {
					return
				}
				m = resign(msg, b.Public())
			}
			req, err := b.ReadInitiation(m)
			if err != nil {
				continue
			}
			if req.Remote != a.Public() || len(req.Certificate) > MaxCertificate {
				t.Fatalf("%x is read as from %v", m, req.Remote)
			}
			if m2, _, err := req.Respond(nil, PresharedKey{}, 1); err != nil || len(m2) > len(m) {
				t.Fatalf("response of %d bytes to %d, %v", len(m2), len(m), err)
			}
		}
	})
}

func FuzzFinish(f *testing.F) {
	a, b := newTestLocal(f, 1), newTestLocal(f, 2)
	_, m1 := initiate(f, a, b, PresharedKey{}, "")
	m2, _ := respond(f, b, m1, PresharedKey{})
	f.Add(m2)
	f.Add(m2[:20])
	f.Fuzz(func(t *testing.T, msg []byte) {
		ini, _ := initiate(t, a, b, PresharedKey{}, "")
		finished := false
		if _, err := ini.Finish(msg); err == nil {
			finished = true
		}
		if !finished && len(msg) >= macsLen {
			_, err := ini.Finish(resign(msg, a.Public()))
			finished = err == nil
		}
		if finished {
			// Only the sender index and MAC2 are free.
			n := len(m2) - macsLen
			if len(msg) != len(m2) || !bytes.Equal(msg[8:n], m2[8:n]) {
				t.Fatalf("%x finished", msg)
			}
		} else if _, err := ini.Finish(m2); err != nil {
			t.Fatalf("after %x, the true response: %v", msg, err)
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	l, r := newTestLocal(b, 1), newTestLocal(b, 2)
	for b.Loop() {
		ini, m1, err := l.Initiate(nil, r.Public(), PresharedKey{}, 1, start, nil)
		if err != nil {
			b.Fatal(err)
		}
		req, err := r.ReadInitiation(m1)
		if err != nil {
			b.Fatal(err)
		}
		m2, _, err := req.Respond(nil, PresharedKey{}, 2)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ini.Finish(m2); err != nil {
			b.Fatal(err)
		}
	}
}

// The responder's part of a handshake, with a remote that is known and with one that is not.
func BenchmarkRespond(b *testing.B) {
	for _, known := range []bool{true, false} {
		b.Run(fmt.Sprintf("known=%v", known), func(b *testing.B) {
			l, r := newTestLocal(b, 1), newTestLocal(b, 2)
			if known {
				r.Know(l.Public())
			}
			_, m1 := initiate(b, l, r, PresharedKey{}, "")
			b.ReportAllocs()
			for b.Loop() {
				req, err := r.ReadInitiation(m1)
				if err != nil {
					b.Fatal(err)
				}
				_, keys, err := req.Respond(nil, PresharedKey{}, 2)
				if err != nil {
					b.Fatal(err)
				}
				keys.NewSealer()
				keys.NewOpener()
			}
		})
	}
}

// What an initiation costs that only somebody who does not know our public key would send, and one whose sender
// knows it and nothing else.
func BenchmarkForgedInitiation(b *testing.B) {
	l, r := newTestLocal(b, 1), newTestLocal(b, 2)
	_, m1 := initiate(b, l, r, PresharedKey{}, "")
	m1[initiationPrefix+40] ^= 1
	for _, bench := range []struct {
		name string
		msg  []byte
	}{{"MAC1", bytes.Clone(m1)}, {"static", resign(bytes.Clone(m1), r.Public())}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.ReadInitiation(bench.msg); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkCheckMAC1(b *testing.B) {
	l, r := newTestLocal(b, 1), newTestLocal(b, 2)
	_, m1 := initiate(b, l, r, PresharedKey{}, "")
	b.ReportAllocs()
	for b.Loop() {
		if !r.CheckMAC1(m1) {
			b.Fatal("MAC1")
		}
	}
}
