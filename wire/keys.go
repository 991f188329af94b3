package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// PublicKey is an X25519 public key and the identity of a peer. The zero PublicKey is no key.
type PublicKey [32]byte

// PrivateKey is an X25519 private key. The zero PrivateKey is no key. It prints as "(secret)".
type PrivateKey [32]byte

// PresharedKey is mixed into a handshake beside the Diffie-Hellman results. The zero
// PresharedKey means there is none. It prints as "(secret)".
type PresharedKey [32]byte

// ParsePublicKey reads a public key as base64 (44 characters) or 64 hex digits; space around it
// is ignored. A key of low order or in a non-canonical form is refused with ErrKey.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := parse32(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	if err := PublicKey(b).Check(); err != nil {
		return PublicKey{}, err
	}
	return PublicKey(b), nil
}

// ParsePrivateKey reads a private key as base64 or 64 hex digits. Its errors hold nothing of s.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := parse32(s)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key: %w", err)
	}
	if b == [32]byte{} {
		return PrivateKey{}, errZeroPrivate
	}
	return PrivateKey(b), nil
}

// ParsePresharedKey reads a pre-shared key as base64 or 64 hex digits. All zeros, which would
// mean that there is none, are refused. Its errors hold nothing of s.
func ParsePresharedKey(s string) (PresharedKey, error) {
	b, err := parse32(s)
	if err != nil {
		return PresharedKey{}, fmt.Errorf("pre-shared key: %w", err)
	}
	if b == [32]byte{} {
		return PresharedKey{}, errors.New("pre-shared key: all zeros is the same as none")
	}
	return PresharedKey(b), nil
}

var errZeroPrivate = errors.New("private key: all zeros is no key")

// parse32 never quotes its input, which may be a secret.
func parse32(s string) (k [32]byte, err error) {
	s = strings.TrimSpace(s)
	switch len(s) {
	case 64:
		if _, err := hex.Decode(k[:], []byte(s)); err != nil {
			return [32]byte{}, errors.New("64 characters that are not all hex digits")
		}
	case 44:
		// Two strings for one key are one too many: Strict refuses stray low bits. The decoder skips
		// line ends, which would let a shorter key pass, hence the length.
		n, err := base64.StdEncoding.Strict().Decode(k[:], []byte(s[:43]+"="))
		if err != nil || n != len(k) || s[43] != '=' {
			return [32]byte{}, errors.New("44 characters that are not the base64 of 32 bytes")
		}
	default:
		return [32]byte{}, fmt.Errorf("%d characters; want 44 of base64 or 64 hex digits", len(s))
	}
	return k, nil
}

// String returns the key in base64, as ParsePublicKey reads it.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText is String. It makes keys readable in JSON, as map keys too.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is ParsePublicKey.
func (k *PublicKey) UnmarshalText(b []byte) (err error) {
	p, err := ParsePublicKey(string(b))
	if err == nil {
		*k = p
	}
	return err
}

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// Compare orders keys by their bytes, as bytes.Compare does. When two peers initiate at once, the
// smaller key yields (§18).
func (k PublicKey) Compare(other PublicKey) int { return bytes.Compare(k[:], other[:]) }

// Check returns ErrKey for a key that must not be an identity (§3): one of low order, with which every
// Diffie-Hellman result is zero, or one written in another way than the canonical, which would
// let one key pass for two.
func (k PublicKey) Check() error {
	if !canonical(k) || lowOrder(k) {
		return ErrKey
	}
	return nil
}

// canonical reports whether k, little-endian, is less than 2^255 - 19.
func canonical(k [32]byte) bool {
	if k[31] < 0x7f {
		return true
	}
	if k[31] > 0x7f {
		return false
	}
	for _, b := range k[1:31] {
		if b != 0xff {
			return true
		}
	}
	return k[0] < 0xed
}

// lowOrder reports whether a canonical k is one of the five whose order divides 8, on the curve
// or its twist. X25519 multiplies by a multiple of 8, so these alone give zero.
func lowOrder(k [32]byte) bool {
	for i := range lowOrderKeys {
		if k == lowOrderKeys[i] {
			return true
		}
	}
	return false
}

var lowOrderKeys = [5][32]byte{
	{},
	{1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
}

// GeneratePrivateKey makes a private key of 32 bytes of random (nil: crypto/rand).
func GeneratePrivateKey(random io.Reader) (PrivateKey, error) {
	var k PrivateKey
	if _, err := io.ReadFull(source(random), k[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("making a private key: %w", err)
	}
	if k.IsZero() {
		return PrivateKey{}, errZeroPrivate
	}
	return k, nil
}

func source(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}

// IsZero reports whether k is no key.
func (k PrivateKey) IsZero() bool { return k == PrivateKey{} }

// IsZero reports whether k is none.
func (k PresharedKey) IsZero() bool { return k == PresharedKey{} }

// Public returns the public key of k.
func (k PrivateKey) Public() PublicKey {
	return PublicKey(k.ecdh().PublicKey().Bytes())
}

func (k PrivateKey) ecdh() *ecdh.PrivateKey {
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic(err) // X25519 takes any 32 bytes
	}
	return p
}

const pemType = "PRIVATE KEY"

// MarshalPEM returns k as PKCS#8 in PEM, as openssl genpkey -algorithm x25519 writes it.
func (k PrivateKey) MarshalPEM() ([]byte, error) {
	if k.IsZero() {
		return nil, errZeroPrivate
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.ecdh())
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParsePrivateKeyPEM reads the one PKCS#8 X25519 key in b. Its errors hold nothing of b.
func ParsePrivateKeyPEM(b []byte) (PrivateKey, error) {
	block, rest := pem.Decode(b)
	if block == nil {
		return PrivateKey{}, errors.New("private key: no PEM block")
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return PrivateKey{}, errors.New("private key: it is encrypted; decrypt it first")
	}
	if block.Type != pemType {
		return PrivateKey{}, fmt.Errorf("private key: PEM block is of another type; want %q", pemType)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return PrivateKey{}, errors.New("private key: something follows the PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return PrivateKey{}, errors.New("private key: PEM block is not PKCS#8 of a known algorithm")
	}
	x, ok := key.(*ecdh.PrivateKey)
	if !ok || x.Curve() != ecdh.X25519() {
		return PrivateKey{}, fmt.Errorf("private key: it is a %T; want X25519", key)
	}
	k := PrivateKey(x.Bytes())
	if k.IsZero() {
		return PrivateKey{}, errZeroPrivate
	}
	return k, nil
}
