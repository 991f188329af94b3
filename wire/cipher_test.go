package wire

import (
	"bytes"
	"testing"

	"github.com/flynn/noise"
)

// The library's own cipher judges ours.
func TestLateCipherIsTheLibrarys(t *testing.T) {
	key := [32]byte{1, 2, 3}
	ours, theirs := lateAESGCM{}.Cipher(key), noise.CipherAESGCM.Cipher(key)
	if got, want := (lateAESGCM{}).CipherName(), noise.CipherAESGCM.CipherName(); got != want {
		t.Errorf("it is called %q, want %q", got, want)
	}
	for _, n := range []uint64{0, 1, 1<<40 + 7, noise.MaxNonce} {
		text, ad, before := []byte("text"), []byte("ad"), []byte("before")
		sealed := ours.Encrypt(bytes.Clone(before), n, ad, text)
		if want := theirs.Encrypt(bytes.Clone(before), n, ad, text); !bytes.Equal(sealed, want) {
			t.Fatalf("message %d: %x, want %x", n, sealed, want)
		}
		sealed = sealed[len(before):]
		if got, err := ours.Decrypt(nil, n, ad, sealed); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("message %d: %q, %v", n, got, err)
		}
		sealed[0] ^= 1
		if _, err := ours.Decrypt(nil, n, ad, sealed); err == nil {
			t.Fatalf("message %d: opened though changed", n)
		}
	}
}
