package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/flynn/noise"
)

// A plainNoise is Noise_IKpsk2_25519_AESGCM_SHA256 written down from the Noise specification (revision 34), both
// ends at once, with nothing but the standard library. It judges the handshake library and the vectors.
type plainNoise struct {
	h, ck []byte
	k     []byte
	n     uint64
}

func (s *plainNoise) mixHash(b []byte) {
	sum := sha256.Sum256(append(bytes.Clone(s.h), b...))
	s.h = sum[:]
}

// hkdf is HKDF of section 4.3, which is RFC 5869 with empty info.
func hkdf(ck, input []byte, n int) [][]byte {
	mac := func(key []byte, data ...[]byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(bytes.Join(data, nil))
		return m.Sum(nil)
	}
	temp := mac(ck, input)
	var out [][]byte
	var last []byte
	for i := range n {
		last = mac(temp, last, []byte{byte(i + 1)})
		out = append(out, last)
	}
	return out
}

func (s *plainNoise) mixKey(b []byte) {
	o := hkdf(s.ck, b, 2)
	s.ck, s.k, s.n = o[0], o[1], 0
}

func (s *plainNoise) mixKeyAndHash(b []byte) {
	o := hkdf(s.ck, b, 3)
	s.ck = o[0]
	s.mixHash(o[1])
	s.k, s.n = o[2], 0
}

func (s *plainNoise) encryptAndHash(b []byte) []byte {
	out := gcm(s.k, s.n, s.h, b)
	s.n++
	s.mixHash(out)
	return out
}

func gcm(key []byte, n uint64, ad, b []byte) []byte {
	return newAEAD([32]byte(key)).Seal(nil, binary.BigEndian.AppendUint64(make([]byte, 4), n), b, ad)
}

// plainHandshake returns both messages and both keys.
func plainHandshake(t testing.TB, prologue, is, rs, ie, re, psk, payload0, payload1 []byte) (m0, m1, toResponder, toInitiator []byte) {
	t.Helper()
	private := func(b []byte) *ecdh.PrivateKey {
		k, err := ecdh.X25519().NewPrivateKey(b)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	pub := func(b []byte) []byte { return private(b).PublicKey().Bytes() }
	dh := func(a, b []byte) []byte {
		out, err := private(a).ECDH(private(b).PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s := &plainNoise{h: make([]byte, 32)}
	copy(s.h, "Noise_IKpsk2_25519_AESGCM_SHA256") // exactly 32 bytes
	s.ck = s.h
	s.mixHash(prologue)
	s.mixHash(pub(rs)) // <- s

	// -> e, es, s, ss
	m0 = append(m0, pub(ie)...)
	s.mixHash(pub(ie))
	s.mixKey(pub(ie)) // e in a pattern with a psk
	s.mixKey(dh(ie, rs))
	m0 = append(m0, s.encryptAndHash(pub(is))...)
	s.mixKey(dh(is, rs))
	m0 = append(m0, s.encryptAndHash(payload0)...)

	// <- e, ee, se, psk
	m1 = append(m1, pub(re)...)
	s.mixHash(pub(re))
	s.mixKey(pub(re))
	s.mixKey(dh(re, ie))
	s.mixKey(dh(is, re))
	s.mixKeyAndHash(psk)
	m1 = append(m1, s.encryptAndHash(payload1)...)

	o := hkdf(s.ck, nil, 2)
	return m0, m1, o[0], o[1]
}

type noiseVector struct {
	Prologue           hexBytes `json:"prologue"`
	InitiatorStatic    hexBytes `json:"initiator_static"`
	ResponderStatic    hexBytes `json:"responder_static"`
	InitiatorEphemeral hexBytes `json:"initiator_ephemeral"`
	ResponderEphemeral hexBytes `json:"responder_ephemeral"`
	PresharedKey       hexBytes `json:"preshared_key"`
	Messages           []struct {
		Payload    hexBytes `json:"payload"`
		Ciphertext hexBytes `json:"ciphertext"`
	} `json:"messages"`
}

func TestNoiseVectors(t *testing.T) {
	var file struct {
		Source  string        `json:"source"`
		Vectors []noiseVector `json:"vectors"`
	}
	readVectors(t, "noise.json", &file)
	if len(file.Vectors) != 4 {
		t.Fatalf("%d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		m := v.Messages
		m0, m1, toR, toI := plainHandshake(t, v.Prologue, v.InitiatorStatic, v.ResponderStatic, v.InitiatorEphemeral, v.ResponderEphemeral,
			v.PresharedKey, m[0].Payload, m[1].Payload)
		if !bytes.Equal(m0, m[0].Ciphertext) || !bytes.Equal(m1, m[1].Ciphertext) {
			t.Error("the specification gives other messages")
		}
		if !bytes.Equal(gcm(toR, 0, nil, m[2].Payload), m[2].Ciphertext) || !bytes.Equal(gcm(toI, 0, nil, m[3].Payload), m[3].Ciphertext) {
			t.Error("the specification gives other keys")
		}

		// The same by the configuration of a Local, with the vector's prologue.
		party := func(static, ephemeral []byte) noise.Config {
			l, err := NewLocal(PrivateKey(static))
			if err != nil {
				t.Fatal(err)
			}
			c := l.config(bytes.NewReader(ephemeral))
			c.Prologue, c.PresharedKey = v.Prologue, v.PresharedKey
			return c
		}
		ci, cr := party(v.InitiatorStatic, v.InitiatorEphemeral), party(v.ResponderStatic, v.ResponderEphemeral)
		ci.Initiator, ci.PeerStatic = true, cr.StaticKeypair.Public
		i, err := noise.NewHandshakeState(ci)
		if err != nil {
			t.Fatal(err)
		}
		r, err := noise.NewHandshakeState(cr)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _, err := i.WriteMessage(nil, m[0].Payload); err != nil || !bytes.Equal(got, m[0].Ciphertext) {
			t.Fatalf("message 1: %v", err)
		}
		if got, _, _, err := r.ReadMessage(nil, m[0].Ciphertext); err != nil || !bytes.Equal(got, m[0].Payload) {
			t.Fatalf("reading message 1: %v", err)
		}
		got, k1, k2, err := r.WriteMessage(nil, m[1].Payload)
		if err != nil || !bytes.Equal(got, m[1].Ciphertext) {
			t.Fatalf("message 2: %v", err)
		}
		if a, b := k1.UnsafeKey(), k2.UnsafeKey(); !bytes.Equal(a[:], toR) || !bytes.Equal(b[:], toI) {
			t.Error("keys differ")
		}
	}
}
