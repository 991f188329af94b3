package wire

import (
	"bytes"
	"testing"

	"github.com/flynn/noise"
)

// The Diffie-Hellman function of a handshake, whatever it remembers, is that of Noise.
func TestExchangeIsThatOfNoise(t *testing.T) {
	local := newTestLocal(t, 1)
	known := newTestLocal(t, 2).Public()
	local.Know(known)
	for _, remembers := range []bool{true, false} {
		d := &x25519{local: local}
		ephemeral, err := d.GenerateKeypair(nil)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := noise.DH25519.GenerateKeypair(source(nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, private := range [][]byte{local.static.Private, ephemeral.Private, foreign.Private} {
			for _, public := range []PublicKey{known, newTestLocal(t, 3).Public(), local.Public(), PublicKey(ephemeral.Public)} {
				want, err := noise.DH25519.DH(private, public[:])
				if err != nil {
					t.Fatal(err)
				}
				if got, err := d.DH(private, public[:]); err != nil || !bytes.Equal(got, want) {
					t.Errorf("remembers %v: %x with %v: %x, %v; want %x", remembers, private, public, got, err, want)
				}
			}
			for _, k := range lowOrderKeys {
				if got, err := d.DH(private, k[:]); err == nil {
					t.Errorf("%x with a key of low order: %x", private, got)
				}
			}
		}
		local.Forget(known)
	}
}
