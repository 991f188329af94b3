package wire

import (
	"encoding/binary"
	"strconv"
)

// CircuitOverhead is the length of what circuit data puts before the datagram it carries.
const CircuitOverhead = 12

// CircuitID names a circuit at one of its two ends; the relay swaps it for the other end's. It is
// random and never zero.
type CircuitID uint64

// String returns 16 hex digits.
func (c CircuitID) String() string {
	s := strconv.FormatUint(uint64(c), 16)
	return "0000000000000000"[len(s):] + s
}

// MarshalText is String: JSON numbers of 64 bits do not survive every reader.
func (c CircuitID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// PutCircuit writes the header of circuit data into the first CircuitOverhead bytes of b, which
// are head room before a whole datagram (§11).
func PutCircuit(b []byte, id CircuitID) {
	_ = b[CircuitOverhead-1]
	b[0], b[1], b[2], b[3] = byte(KindCircuit), 0, 0, 0
	binary.BigEndian.PutUint64(b[4:], uint64(id))
}

// circuitWhole is the bit of the second byte of circuit data that forbids the relay to have it fragmented.
const circuitWhole = 1 << 0

// SetWhole marks circuit data, in place: the relay is to send it on so that nobody fragments it, or not at all (§11).
func SetWhole(b []byte) { b[1] |= circuitWhole }

// IsWhole reports whether circuit data, which was parsed before, is so marked.
func IsWhole(b []byte) bool { return b[1]&circuitWhole != 0 }

// SetCircuit swaps the id in circuit data, in place, as a relay does. b was parsed before.
func SetCircuit(b []byte, id CircuitID) {
	binary.BigEndian.PutUint64(b[4:CircuitOverhead], uint64(id))
}

// ParseCircuit takes circuit data apart (§11). inner borrows from b; its first byte is a kind that
// may be carried, the rest of it was not looked at: pass it to KindOf. Circuits do not nest.
func ParseCircuit(b []byte) (id CircuitID, inner []byte, ok bool) {
	if len(b) < CircuitOverhead+NoticeLen || b[0] != byte(KindCircuit) || b[1]&^circuitWhole|b[2]|b[3] != 0 {
		return 0, nil, false
	}
	id = CircuitID(binary.BigEndian.Uint64(b[4:]))
	inner = b[CircuitOverhead:]
	if k := Kind(inner[0]); id == 0 || k < KindInitiation || k > KindNotice {
		return 0, nil, false
	}
	return id, inner, true
}

// CircuitCode says why a relay did not forward circuit data (§12).
type CircuitCode uint8

const (
	CircuitMoved   CircuitCode = 1 // a challenge: the circuit is known, the source address is not its own
	CircuitUnknown CircuitCode = 2 // there is no such circuit
)

// String returns "moved" or "unknown".
func (c CircuitCode) String() string {
	switch c {
	case CircuitMoved:
		return "moved"
	case CircuitUnknown:
		return "unknown"
	}
	return "CircuitCode(" + strconv.Itoa(int(c)) + ")"
}

// AppendCircuitNotice appends a circuit notice. It is shorter than any circuit data.
func AppendCircuitNotice(b []byte, code CircuitCode, id CircuitID) []byte {
	b = append(b, byte(KindCircuitNotice), byte(code), 0, 0)
	return binary.BigEndian.AppendUint64(b, uint64(id))
}

// ParseCircuitNotice takes a circuit notice apart. It is not authenticated: it may prompt, and end nothing.
func ParseCircuitNotice(b []byte) (code CircuitCode, id CircuitID, ok bool) {
	if len(b) != CircuitNoticeLen || b[0] != byte(KindCircuitNotice) || b[2]|b[3] != 0 {
		return 0, 0, false
	}
	code, id = CircuitCode(b[1]), CircuitID(binary.BigEndian.Uint64(b[4:]))
	if code != CircuitMoved && code != CircuitUnknown || id == 0 {
		return 0, 0, false
	}
	return code, id, true
}
