package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
)

// A Control is a control message: the inner bytes of data that are neither a packet nor empty (§13). It is one of
// Probe, ProbeReply, Lookup, LookupReply, OpenCircuit, OpenCircuitReply, CircuitOffered and CloseCircuit, as values.
type Control interface {
	// Append appends the message, at most MaxControl bytes, to b. An error says which field cannot be written.
	Append(b []byte) ([]byte, error)
}

// MaxControl is the most bytes of a control message: a CircuitOffered with everything. Only a Probe's padding may be longer.
const MaxControl = 1 + 8 + 32 + 1 + MaxName + 1 + 1 + 18 + 1 + MaxPrefixes*18

// The first byte of a control message. None begins with the bits of an IP version, 4 or 6.
const (
	kindProbe            = 0x01
	kindProbeReply       = 0x02
	kindLookup           = 0x10
	kindLookupReply      = 0x11
	kindOpenCircuit      = 0x12
	kindOpenCircuitReply = 0x13
	kindCircuitOffered   = 0x14
	kindCloseCircuit     = 0x15
)

// ParseControl reads a control message. It is strict: there is one way to write each message, and a byte too many is ErrMalformed
// as well as one too few or a kind not known. The result borrows nothing from b.
func ParseControl(b []byte) (Control, error) {
	r := &reader{b: b}
	var c Control
	switch kind := r.byte(); kind {
	case kindProbe:
		c = r.probe()
	case kindProbeReply:
		c = ProbeReply{Token: r.token(), Observed: r.addrPort()}
	case kindLookup:
		c = r.lookup()
	case kindLookupReply:
		c = r.lookupReply()
	case kindOpenCircuit:
		c = OpenCircuit{ID: r.question(), Remote: r.key()}
	case kindOpenCircuitReply:
		c = r.openCircuitReply()
	case kindCircuitOffered:
		c = CircuitOffered{Circuit: r.circuit(), Remote: r.member()}
	case kindCloseCircuit:
		c = CloseCircuit{Circuit: r.circuit()}
	default:
		return nil, fmt.Errorf("%w: control message of unknown kind %#02x", ErrMalformed, kind)
	}
	r.require(len(r.b) == 0)
	if r.bad {
		return nil, fmt.Errorf("%w: control message of kind %#02x", ErrMalformed, b[0])
	}
	return c, nil
}

// Token ties a probe's reply to the probe; it is random.
type Token [8]byte

// QuestionID ties a reply to its question; it is chosen by who asks.
type QuestionID uint32

func begin(b []byte, kind byte, id QuestionID) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(id))
}

// Probe asks for a ProbeReply on the path it came by. Padding is how many zero bytes make it longer, so that the answer
// shows that a datagram of that length arrived.
type Probe struct {
	Token   Token
	Padding int
}

// ProbeLen is the length of a Probe without padding, and MaxPadding the most that a UDP datagram could hold besides.
const (
	ProbeLen   = 1 + len(Token{})
	MaxPadding = 1<<16 - 1 - DataOverhead - ProbeLen
)

// ProbeReply echoes a Token. Observed is where the probe came from, the zero value when the path
// has no addresses.
type ProbeReply struct {
	Token    Token
	Observed netip.AddrPort
}

func (m Probe) Append(b []byte) ([]byte, error) {
	if m.Padding < 0 || m.Padding > MaxPadding {
		return nil, fmt.Errorf("probe: padding of %d bytes, want 0 to %d", m.Padding, MaxPadding)
	}
	b = append(append(b, kindProbe), m.Token[:]...)
	return append(b, make([]byte, m.Padding)...), nil
}

func (r *reader) probe() Probe {
	m := Probe{Token: r.token(), Padding: len(r.b)}
	r.require(m.Padding <= MaxPadding && zero(r.rest()))
	return m
}

// zero reports whether all of b is zero.
func zero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// TrimControl returns a control message without what only makes it longer, the padding of a Probe: at most MaxControl bytes,
// the same message for who answers it, and all there is to keep of it. ok is false for what is malformed by its length or its padding.
func TrimControl(b []byte) (trimmed []byte, ok bool) {
	if len(b) > ProbeLen && b[0] == kindProbe {
		return b[:ProbeLen], len(b)-ProbeLen <= MaxPadding && zero(b[ProbeLen:])
	}
	return b, len(b) <= MaxControl
}

func (m ProbeReply) Append(b []byte) ([]byte, error) {
	b, err := appendAddrPort(append(append(b, kindProbeReply), m.Token[:]...), m.Observed)
	if err != nil {
		return nil, fmt.Errorf("probe reply: %w", err)
	}
	return b, nil
}

// By says which field of a Lookup is asked for.
type By uint8

const (
	ByAddress By = 1 // whose prefix, of all the most specific, holds Address
	ByKey     By = 2
	ByName    By = 3
)

// Lookup asks the directory for one member. Only the field that By names is written.
type Lookup struct {
	ID      QuestionID
	By      By
	Address netip.Addr
	Key     PublicKey
	Name    string
}

func (m Lookup) Append(b []byte) ([]byte, error) {
	b = append(begin(b, kindLookup, m.ID), byte(m.By))
	switch m.By {
	case ByAddress:
		if !m.Address.IsValid() || m.Address.Is4In6() || m.Address.Zone() != "" {
			return nil, fmt.Errorf("lookup: address %v: want an IPv4 or IPv6 address, not mapped, without zone", m.Address)
		}
		return append(b, m.Address.AsSlice()...), nil
	case ByKey:
		if err := m.Key.Check(); err != nil {
			return nil, fmt.Errorf("lookup: %w", err)
		}
		return append(b, m.Key[:]...), nil
	case ByName:
		if err := CheckName(m.Name); err != nil {
			return nil, fmt.Errorf("lookup: %w", err)
		}
		return append(b, m.Name...), nil
	}
	return nil, errors.New("lookup: by address, key or name?")
}

func (r *reader) lookup() Lookup {
	m := Lookup{ID: r.question(), By: By(r.byte())}
	switch m.By {
	case ByAddress:
		m.Address = r.addr(len(r.b))
	case ByKey:
		m.Key = r.key()
	case ByName:
		m.Name = string(r.rest())
		r.require(CheckName(m.Name) == nil)
	default:
		r.bad = true
	}
	return m
}

// LookupStatus is the outcome of a Lookup.
type LookupStatus uint8

const (
	LookupFound    LookupStatus = 0
	LookupNotFound LookupStatus = 1
	LookupTryLater LookupStatus = 2 // asked too often, or the relay is busy
)

// String returns the status in words.
func (s LookupStatus) String() string {
	switch s {
	case LookupFound:
		return "found"
	case LookupNotFound:
		return "not found"
	case LookupTryLater:
		return "try later"
	}
	return "LookupStatus(" + strconv.Itoa(int(s)) + ")"
}

// LookupReply answers a Lookup. Member is there for LookupFound only.
type LookupReply struct {
	ID     QuestionID
	Status LookupStatus
	Member Member
}

func (m LookupReply) Append(b []byte) ([]byte, error) {
	if m.Status > LookupTryLater {
		return nil, fmt.Errorf("lookup reply: unknown status %d", m.Status)
	}
	b = append(begin(b, kindLookupReply, m.ID), byte(m.Status))
	if m.Status != LookupFound {
		return b, nil
	}
	b, err := m.Member.append(b)
	if err != nil {
		return nil, fmt.Errorf("lookup reply: %w", err)
	}
	return b, nil
}

func (r *reader) lookupReply() LookupReply {
	m := LookupReply{ID: r.question(), Status: LookupStatus(r.byte())}
	r.require(m.Status <= LookupTryLater)
	if m.Status == LookupFound {
		m.Member = r.member()
	}
	return m
}

// OpenCircuit asks the relay for a circuit to the member with the key Remote.
type OpenCircuit struct {
	ID     QuestionID
	Remote PublicKey
}

func (m OpenCircuit) Append(b []byte) ([]byte, error) {
	if err := m.Remote.Check(); err != nil {
		return nil, fmt.Errorf("open circuit: %w", err)
	}
	return append(begin(b, kindOpenCircuit, m.ID), m.Remote[:]...), nil
}

// CircuitStatus is the outcome of an OpenCircuit.
type CircuitStatus uint8

const (
	CircuitOK       CircuitStatus = 0
	CircuitNoMember CircuitStatus = 1 // no member has that key
	CircuitOffline  CircuitStatus = 2 // the member has no session with the relay
	CircuitLimit    CircuitStatus = 3 // one of the two has too many circuits
)

// String returns the status in words.
func (s CircuitStatus) String() string {
	switch s {
	case CircuitOK:
		return "ok"
	case CircuitNoMember:
		return "no such member"
	case CircuitOffline:
		return "member is offline"
	case CircuitLimit:
		return "too many circuits"
	}
	return "CircuitStatus(" + strconv.Itoa(int(s)) + ")"
}

// OpenCircuitReply answers an OpenCircuit. Circuit is there for CircuitOK only.
type OpenCircuitReply struct {
	ID      QuestionID
	Status  CircuitStatus
	Circuit CircuitID
}

func (m OpenCircuitReply) Append(b []byte) ([]byte, error) {
	if m.Status > CircuitLimit {
		return nil, fmt.Errorf("open circuit reply: unknown status %d", m.Status)
	}
	b = append(begin(b, kindOpenCircuitReply, m.ID), byte(m.Status))
	if m.Status != CircuitOK {
		return b, nil
	}
	if m.Circuit == 0 {
		return nil, errors.New("open circuit reply: " + errNoCircuit)
	}
	return binary.BigEndian.AppendUint64(b, uint64(m.Circuit)), nil
}

func (r *reader) openCircuitReply() OpenCircuitReply {
	m := OpenCircuitReply{ID: r.question(), Status: CircuitStatus(r.byte())}
	r.require(m.Status <= CircuitLimit)
	if m.Status == CircuitOK {
		m.Circuit = r.circuit()
	}
	return m
}

// CircuitOffered tells a member that Remote, a member too, has opened a circuit to it, and by which id it
// sends back.
type CircuitOffered struct {
	Circuit CircuitID
	Remote  Member
}

func (m CircuitOffered) Append(b []byte) ([]byte, error) {
	if m.Circuit == 0 {
		return nil, errors.New("circuit offered: " + errNoCircuit)
	}
	b, err := m.Remote.append(binary.BigEndian.AppendUint64(append(b, kindCircuitOffered), uint64(m.Circuit)))
	if err != nil {
		return nil, fmt.Errorf("circuit offered: %w", err)
	}
	return b, nil
}

// CloseCircuit says, from member to relay or from relay to member, that a circuit is no more. Circuit is the id
// at that member's end.
type CloseCircuit struct{ Circuit CircuitID }

func (m CloseCircuit) Append(b []byte) ([]byte, error) {
	if m.Circuit == 0 {
		return nil, errors.New("close circuit: " + errNoCircuit)
	}
	return binary.BigEndian.AppendUint64(append(b, kindCloseCircuit), uint64(m.Circuit)), nil
}

const errNoCircuit = "zero is no circuit id"
