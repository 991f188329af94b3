package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"io"

	"github.com/flynn/noise"
)

// An x25519 is the Diffie-Hellman function of one handshake. It gives the same results as noise.DH25519 in less than half
// the time: crypto/ecdh computes the public key of each private key it is handed, at the price of an exchange, and
// so each is handed to it once; and what all handshakes with a remote have in common is remembered.
type x25519 struct {
	local     *Local
	ephemeral keyPair
}

// A keyPair is a private key as Noise names it and as crypto/ecdh wants it.
type keyPair struct {
	private []byte
	ecdh    *ecdh.PrivateKey
}

// suite is the cipher suite of the handshake (§4, §5) around d.
func (d *x25519) suite() noise.CipherSuite {
	return noise.NewCipherSuite(d, lateAESGCM{}, noise.HashSHA256)
}

// GenerateKeypair makes the ephemeral key of the handshake. It implements noise.DHFunc.
func (d *x25519) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	private := make([]byte, 32)
	if _, err := io.ReadFull(source(random), private); err != nil {
		return noise.DHKey{}, err
	}
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return noise.DHKey{}, err
	}
	d.ephemeral = keyPair{private, k}
	return noise.DHKey{Private: private, Public: k.PublicKey().Bytes()}, nil
}

// DH implements noise.DHFunc. A public key of low order is an error.
func (d *x25519) DH(private, public []byte) ([]byte, error) {
	if subtle.ConstantTimeCompare(private, d.local.static.Private) == 1 {
		if result := d.local.statics.get(PublicKey(public)); result != nil {
			return result, nil
		}
		return exchange(d.local.ecdh, PublicKey(public))
	}
	if k := d.ephemeral; k.ecdh != nil && bytes.Equal(k.private, private) {
		return exchange(k.ecdh, PublicKey(public))
	}
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return exchange(k, PublicKey(public))
}

func (*x25519) DHLen() int     { return 32 }
func (*x25519) DHName() string { return "25519" }

// exchange returns the Diffie-Hellman result, ErrKey for a public key of low order.
func exchange(private *ecdh.PrivateKey, public PublicKey) ([]byte, error) {
	p, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return nil, err
	}
	result, err := private.ECDH(p)
	if err != nil {
		return nil, ErrKey
	}
	return result, nil
}
