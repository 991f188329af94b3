package wire

import (
	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// X25519 (RFC 7748), in constant time. It is here, on the field arithmetic of the standard library that
// filippo.io/edwards25519 exports, because a handshake makes a key that it uses twice: crypto/ecdh finds the public
// key of a private one by a whole ladder, and takes no private key without doing so. Its results judge
// these in the tests.

// base returns the public key of a private one. Multiples of the base point are looked up in tables on the Edwards curve,
// and mapped to ours: less than half the time of a ladder.
func base(private *[32]byte) PublicKey {
	s, err := edwards25519.NewScalar().SetBytesWithClamping(private[:])
	if err != nil {
		panic(err) // 32 bytes are always a scalar
	}
	return PublicKey(new(edwards25519.Point).ScalarBaseMult(s).BytesMontgomery())
}

// exchange returns the Diffie-Hellman result of a private key and a public one, ErrKey for one of low order.
func exchange(private, public *[32]byte) ([]byte, error) {
	result := ladder(private, public)
	var or byte
	for _, b := range result {
		or |= b
	}
	if or == 0 {
		return nil, ErrKey
	}
	return result, nil
}

// ladder is the Montgomery ladder of RFC 7748, section 5, in its names: u is a coordinate on the curve or its twist, of which
// the top bit is ignored.
func ladder(k, u *[32]byte) []byte {
	scalar := *k
	scalar[0] &= 248
	scalar[31] &= 127
	scalar[31] |= 64

	var x1, x2, z2, x3, z3, a, b, c, d, e, da, cb field.Element
	if _, err := x1.SetBytes(u[:]); err != nil {
		panic(err) // any 32 bytes are taken
	}
	x2.One()
	x3.Set(&x1)
	z3.One()
	swap := 0
	for t := 254; t >= 0; t-- {
		bit := int(scalar[t/8]>>(t%8)) & 1
		x2.Swap(&x3, swap^bit)
		z2.Swap(&z3, swap^bit)
		swap = bit

		a.Add(&x2, &z2)
		b.Subtract(&x2, &z2)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		da.Multiply(&d, &a)
		cb.Multiply(&c, &b)
		a.Square(&a)        // AA
		b.Square(&b)        // BB
		e.Subtract(&a, &b)  // E
		x2.Multiply(&a, &b) // AA * BB
		z2.Mult32(&e, a24)
		z2.Add(&z2, &a)
		z2.Multiply(&z2, &e) // E * (AA + a24 * E)
		x3.Add(&da, &cb)
		x3.Square(&x3)
		z3.Subtract(&da, &cb)
		z3.Square(&z3)
		z3.Multiply(&z3, &x1)
	}
	x2.Swap(&x3, swap)
	z2.Swap(&z3, swap)
	z2.Invert(&z2)
	return x2.Multiply(&x2, &z2).Bytes()
}

// a24 is (A - 2) / 4 for the curve's A.
const a24 = 121665
