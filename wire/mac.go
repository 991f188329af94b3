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

// macOf is HMAC-SHA256 (RFC 2104) of the data, one after the other, cut to 16 bytes. A key is at most 64 bytes
// long. crypto/hmac would do, but it allocates, and a flood of forged handshakes is told from the rest here.
func macOf(key []byte, data ...[]byte) (m mac) {
	var inner [sha256.BlockSize + MaxInitiationLen]byte // room for the longest message
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(inner[:sha256.BlockSize], key)
	copy(outer[:sha256.BlockSize], key)
	for i := range sha256.BlockSize {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	text := inner[:sha256.BlockSize]
	for _, d := range data {
		text = append(text, d...)
	}
	sum := sha256.Sum256(text)
	copy(outer[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(outer[:])
	return mac(sum[:macLen])
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
