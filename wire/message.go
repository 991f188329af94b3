package wire

import (
	"encoding/binary"
	"errors"
)

// Errors callers branch on, to count drops by reason. All of them concern one datagram only.
var (
	ErrMalformed = errors.New("wire: malformed message")
	ErrMAC1      = errors.New("wire: MAC1 is wrong: not made for this public key")
	ErrKey       = errors.New("wire: public key is of low order or not canonical")
	ErrHandshake = errors.New("wire: handshake message is forged or made under another key")
	ErrIndex     = errors.New("wire: message answers something else")
	ErrUsed      = errors.New("wire: handshake was already finished or wiped")
	ErrTag       = errors.New("wire: data is forged or sealed under another key")
	ErrExhausted = errors.New("wire: session has reached its last counter or was retired")
)

// Index names a handshake or session at the end that chose it. It is random, so that a
// stranger cannot guess one that is live.
type Index uint32

// Kind is the first byte of a datagram (§2). The zero Kind is no message at all.
type Kind uint8

const (
	KindInvalid       Kind = 0
	KindInitiation    Kind = 1 // answered by a response or a cookie reply
	KindResponse      Kind = 2 // confirmed by the first data; or answered by a cookie reply
	KindCookieReply   Kind = 3
	KindData          Kind = 4
	KindNotice        Kind = 5 // answers data for an index nobody holds
	KindCircuit       Kind = 6
	KindCircuitNotice Kind = 7 // answers circuit data the relay does not forward
)

// String returns the kind's name as docs/protocol.md has it.
func (k Kind) String() string {
	switch k {
	case KindInitiation:
		return "initiation"
	case KindResponse:
		return "response"
	case KindCookieReply:
		return "cookie reply"
	case KindData:
		return "data"
	case KindNotice:
		return "notice"
	case KindCircuit:
		return "circuit data"
	case KindCircuitNotice:
		return "circuit notice"
	}
	return "invalid"
}

// Lengths in bytes.
const (
	MaxCertificate = 512 // the most a certificate in an initiation takes

	InitiationLen    = initiationFixed                // without a certificate
	MaxInitiationLen = InitiationLen + MaxCertificate // with the longest
	ResponseLen      = responsePrefix + 32 + 16 + macsLen
	CookieReplyLen   = 8 + 12 + macLen + 16
	NoticeLen        = 8

	CircuitNoticeLen = 12

	initiationPrefix = 8  // kind, zero, sender index
	responsePrefix   = 12 // kind, zero, sender index, receiver index
	payloadFixed     = 12 + 2
	initiationFixed  = initiationPrefix + 32 + 48 + payloadFixed + 16 + macsLen
)

// KindOf classifies a datagram as it arrived, by its first byte, its length and the bytes that
// must be zero (§2). It is cheap enough for every datagram, and KindInvalid means drop it. Only the
// bytes outside encryption have been looked at.
func KindOf(b []byte) Kind {
	if len(b) < NoticeLen {
		return KindInvalid
	}
	k := Kind(b[0])
	if k == KindData {
		if _, ok := ParseData(b); !ok {
			return KindInvalid
		}
		return KindData
	}
	if b[2] != 0 || b[3] != 0 || b[1] != 0 && k != KindCircuit && k != KindCircuitNotice {
		return KindInvalid
	}
	ok := false
	switch n := len(b); k {
	case KindInitiation:
		ok = n >= InitiationLen && n <= MaxInitiationLen
	case KindResponse:
		ok = n == ResponseLen
	case KindCookieReply:
		ok = n == CookieReplyLen
	case KindNotice:
		ok = n == NoticeLen
	case KindCircuit:
		_, _, ok = ParseCircuit(b)
	case KindCircuitNotice:
		_, _, ok = ParseCircuitNotice(b)
	}
	if !ok {
		return KindInvalid
	}
	return k
}

// ReceiverOf returns the index, chosen by the receiver, that a response, cookie reply, data or
// notice is about; ok is false for every other kind and for what is malformed.
func ReceiverOf(b []byte) (index Index, ok bool) {
	switch KindOf(b) {
	case KindResponse:
		return Index(binary.BigEndian.Uint32(b[8:])), true
	case KindCookieReply, KindData, KindNotice:
		return Index(binary.BigEndian.Uint32(b[4:])), true
	}
	return 0, false
}

// AppendNotice appends a notice (§10): nobody here holds the receiver index of what you sent. It is
// shorter than any data datagram, so it cannot amplify.
func AppendNotice(b []byte, unknown Index) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(KindNotice), 0, 0, 0), uint32(unknown))
}

// ParseNotice returns the index a notice is about: the RemoteIndex of one of our sessions,
// or made up, for a notice is not authenticated.
func ParseNotice(b []byte) (unknown Index, ok bool) {
	if KindOf(b) != KindNotice {
		return 0, false
	}
	return Index(binary.BigEndian.Uint32(b[4:])), true
}
