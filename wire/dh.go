package wire

import (
	"crypto/subtle"
	"io"

	"github.com/flynn/noise"
)

// An x25519 is the Diffie-Hellman function of our handshakes. It gives the same results as noise.DH25519, and
// remembers those that all handshakes with a remote have in common.
type x25519 struct{ local *Local }

// GenerateKeypair makes the ephemeral key of a handshake. It implements noise.DHFunc.
func (x25519) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	var k PrivateKey
	if _, err := io.ReadFull(source(random), k[:]); err != nil {
		return noise.DHKey{}, err
	}
	public := k.Public()
	return noise.DHKey{Private: k[:], Public: public[:]}, nil
}

// DH implements noise.DHFunc. A public key of low order is an error.
func (d x25519) DH(private, public []byte) ([]byte, error) {
	if subtle.ConstantTimeCompare(private, d.local.static.Private) == 1 {
		if result := d.local.statics.get(PublicKey(public)); result != nil {
			return result, nil
		}
	}
	return exchange((*[32]byte)(private), (*[32]byte)(public))
}

func (x25519) DHLen() int     { return 32 }
func (x25519) DHName() string { return "25519" }
