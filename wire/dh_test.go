package wire

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"math/rand/v2"
	"testing"
)

// standard is exchange by the standard library, which judges ours.
func standard(private, public [32]byte) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, err
	}
	p, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return nil, err
	}
	return k.ECDH(p)
}

func wantStandard(t *testing.T, private, public [32]byte) {
	t.Helper()
	want, wantErr := standard(private, public)
	got, err := exchange(&private, &public)
	if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
		t.Fatalf("%x with %x: %x, %v; want %x, %v", private, public, got, err, want, wantErr)
	}
	if err != nil && !errors.Is(err, ErrKey) {
		t.Fatalf("%x with %x: %v, want ErrKey", private, public, err)
	}
}

func wantStandardPublic(t *testing.T, private [32]byte) {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := PrivateKey(private).Public(), PublicKey(k.PublicKey().Bytes()); got != want {
		t.Fatalf("public key of %x: %v, want %v", private, got, want)
	}
}

// edges are scalars and points at which field arithmetic and clamping go wrong if they do: around 0, the prime, the
// powers of two, with and without the bits that clamping sets and the top bit that a point ignores.
func edges() (all [][32]byte) {
	for _, low := range []byte{0, 1, 2, 7, 8, 9, 0xec, 0xed, 0xee, 0xff} {
		for _, mid := range []byte{0, 0xff} {
			for _, high := range []byte{0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff} {
				b := [32]byte(bytes.Repeat([]byte{mid}, 32))
				b[0], b[31] = low, high
				all = append(all, b)
			}
		}
	}
	return append(all, lowOrderKeys[:]...)
}

func TestExchangeIsTheStandardLibrarys(t *testing.T) {
	chance := rand.NewChaCha8([32]byte{2})
	var random [32]byte
	for _, e := range edges() {
		chance.Read(random[:])
		wantStandardPublic(t, e)
		wantStandard(t, e, random)
		wantStandard(t, random, e)
		wantStandard(t, e, e)
	}
	for range 2000 {
		var private, public [32]byte
		chance.Read(private[:])
		chance.Read(public[:])
		wantStandardPublic(t, private)
		wantStandard(t, private, public)
	}
}

func FuzzExchange(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 64 {
			return
		}
		wantStandard(t, [32]byte(b), [32]byte(b[32:]))
		wantStandardPublic(t, [32]byte(b))
	})
}

func BenchmarkExchange(b *testing.B) {
	k := PrivateKey{1: 7}
	private, public := [32]byte(k), [32]byte(k.Public())
	b.ReportAllocs()
	for b.Loop() {
		exchange(&private, &public)
	}
}

func BenchmarkPublic(b *testing.B) {
	k := PrivateKey{1: 7}
	b.ReportAllocs()
	for b.Loop() {
		k.Public()
	}
}
