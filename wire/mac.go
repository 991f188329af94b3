package wire

import (
	"crypto/hmac"
	"crypto/sha256"
)

const (
	macLen  = 16
	macsLen = 2 * macLen // MAC1 and MAC2 end every handshake message
)

type mac [macLen]byte

func macOf(key []byte, data ...[]byte) (m mac) {
	h := hmac.New(sha256.New, key)
	for _, d := range data {
		h.Write(d)
	}
	var sum [sha256.Size]byte
	copy(m[:], h.Sum(sum[:0]))
	return m
}

// labelled derives the keys that anybody who knows a public key can derive (§6, §7).
func labelled(label string, k PublicKey) [32]byte {
	return sha256.Sum256(append([]byte(label), k[:]...))
}

func mac1Key(receiver PublicKey) [32]byte   { return labelled("adit mac1", receiver) }
func cookieKey(receiver PublicKey) [32]byte { return labelled("adit cookie", receiver) }

// sealMACs appends MAC1 under the receiver's key, and MAC2 as zeros.
func sealMACs(msg []byte, receiver PublicKey) []byte {
	key := mac1Key(receiver)
	m := macOf(key[:], msg)
	return append(append(msg, m[:]...), make([]byte, macLen)...)
}

// splitMACs takes apart a message that carriesMACs. MAC1 covers body, MAC2 covers body and mac1.
func splitMACs(msg []byte) (body, mac1, mac2 []byte) {
	n := len(msg) - macsLen
	return msg[:n], msg[n : n+macLen], msg[n+macLen:]
}

// carriesMACs reports whether msg is a well-formed handshake message.
func carriesMACs(msg []byte) bool {
	k := KindOf(msg)
	return k == KindInitiation || k == KindResponse
}

// CheckMAC1 reports whether msg is an initiation or response made by someone who knows our
// public key (§6). It costs about a microsecond: do it before anything dearer. Any goroutine may call it.
func (l *Local) CheckMAC1(msg []byte) bool {
	if !carriesMACs(msg) {
		return false
	}
	body, mac1, _ := splitMACs(msg)
	want := macOf(l.mac1Key[:], body)
	return hmac.Equal(want[:], mac1)
}
