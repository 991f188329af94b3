package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// crypto/hmac judges ours: over every length, in one piece and in three, with keys of every length.
func TestMACIsHMAC(t *testing.T) {
	chance := rand.NewChaCha8([32]byte{1})
	data := make([]byte, MaxInitiationLen+sha256.BlockSize)
	key := make([]byte, sha256.BlockSize)
	for n := range data {
		chance.Read(data)
		chance.Read(key)
		k := key[:n%(len(key)+1)]
		h := hmac.New(sha256.New, k)
		h.Write(data[:n])
		want := h.Sum(nil)[:macLen]
		if got := macOf(k, data[:n]); !bytes.Equal(got[:], want) {
			t.Fatalf("%d bytes under a key of %d: %x, want %x", n, len(k), got, want)
		}
		if got := macOf(k, data[:n/3], data[n/3:n/2], data[n/2:n]); !bytes.Equal(got[:], want) {
			t.Fatalf("%d bytes in pieces under a key of %d: %x, want %x", n, len(k), got, want)
		}
	}
}

func TestCheckMAC1AllocatesNothing(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	_, msg := initiate(t, a, b, PresharedKey{}, "")
	forged := bytes.Clone(msg)
	forged[20] ^= 1
	if n := testing.AllocsPerRun(100, func() { b.CheckMAC1(msg); b.CheckMAC1(forged) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
