package wire

import (
	"crypto/cipher"
	"encoding/binary"

	"github.com/flynn/noise"
)

// lateAESGCM is noise.CipherAESGCM, but a cipher is made of its key when it is first used. A handshake has a key
// after each step; a responder's opens or seals something under three of nine.
type lateAESGCM struct{}

func (lateAESGCM) CipherName() string               { return noise.CipherAESGCM.CipherName() }
func (lateAESGCM) Cipher(key [32]byte) noise.Cipher { return &lateCipher{key: key} }

type lateCipher struct {
	key  [32]byte
	aead cipher.AEAD // nil until it is used
}

// prepare returns the cipher, and the nonce of message n (Noise, section 12.4).
func (c *lateCipher) prepare(n uint64) (cipher.AEAD, []byte) {
	if c.aead == nil {
		c.aead = newAEAD(c.key)
	}
	return c.aead, binary.BigEndian.AppendUint64(make([]byte, 4, 12), n)
}

// Encrypt implements noise.Cipher.
func (c *lateCipher) Encrypt(out []byte, n uint64, ad, plaintext []byte) []byte {
	aead, nonce := c.prepare(n)
	return aead.Seal(out, nonce, plaintext, ad)
}

// Decrypt implements noise.Cipher.
func (c *lateCipher) Decrypt(out []byte, n uint64, ad, ciphertext []byte) ([]byte, error) {
	aead, nonce := c.prepare(n)
	return aead.Open(out, nonce, ciphertext, ad)
}
