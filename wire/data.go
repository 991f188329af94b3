package wire

import (
	"crypto/cipher"
	"encoding/binary"
	"io"
	"sync/atomic"
)

// Room around the inner bytes of data (§8).
const (
	HeaderLen    = 16
	TagLen       = 16
	DataOverhead = HeaderLen + TagLen
)

// Flags are the second byte of data. They are authenticated, so heed them only after Open.
type Flags uint8

// FlagPartialChecksum says that the TCP or UDP checksum of the inner packet covers the
// pseudo-header only.
const FlagPartialChecksum Flags = 1 << 0

const knownFlags = FlagPartialChecksum

// SessionKey is a key of one session and one direction. It prints as "(secret)".
type SessionKey [32]byte

// Keys are what a handshake yields. The zero Keys are none.
type Keys struct {
	Send, Receive SessionKey
	LocalIndex    Index // chosen here; what the remote writes into its data
	RemoteIndex   Index // chosen by the remote; what our data carries
}

// NewSealer returns the sealer of the session. There must be only one: two would use every nonce twice.
func (k *Keys) NewSealer() *Sealer {
	return &Sealer{aead: newAEAD(k.Send), remote: k.RemoteIndex}
}

// NewOpener returns the opener of the session.
func (k *Keys) NewOpener() *Opener {
	return &Opener{aead: newAEAD(k.Receive)}
}

// Wipe zeroes the keys, to be done once sealer and opener are made. The ciphers keep
// what they derived from the keys until they are garbage; Go offers no way to zero that.
func (k *Keys) Wipe() { *k = Keys{} }

// A Nonce is scratch memory of one goroutine for Seal and Open. It holds nothing between calls;
// it is passed in because a local one would be allocated for each packet.
type Nonce [12]byte

func (n *Nonce) set(counter uint64) []byte {
	clear(n[:4])
	binary.BigEndian.PutUint64(n[4:], counter)
	return n[:]
}

// A Sealer seals one direction of one session. Many goroutines may use it at once.
type Sealer struct {
	aead   cipher.AEAD
	remote Index
	next   atomic.Uint64 // the first counter not reserved
}

// Reserve takes n counters, n >= 1: first, first+1 and so on belong to the caller alone, who seals at
// most one packet under each. Counters that go unused are only missing. When less than n are left, or the
// sealer was retired, it returns ErrExhausted and takes none.
func (s *Sealer) Reserve(n int) (first uint64, err error) {
	for {
		first = s.next.Load()
		if n < 1 || uint64(n) > RejectAfterPackets-first {
			return 0, ErrExhausted
		}
		if s.next.CompareAndSwap(first, first+uint64(n)) {
			return first, nil
		}
	}
}

// Reserved returns how many counters were taken: at RekeyAfterPackets it is time for new keys (§17).
func (s *Sealer) Reserved() uint64 { return s.next.Load() }

// Retire makes every later Reserve fail. Counters reserved before may still be sealed under.
func (s *Sealer) Retire() { s.next.Store(RejectAfterPackets) }

// Seal makes data of slot, in place: HeaderLen bytes of room, the inner bytes, TagLen bytes of room. It
// allocates nothing. It panics when slot has no such room or counter was never reserved: the
// one would send plain text, the other reuse a nonce.
func (s *Sealer) Seal(slot []byte, counter uint64, flags Flags, scratch *Nonce) {
	if len(slot) < DataOverhead {
		panic("wire: Seal: slot has no room for header and tag")
	}
	if counter >= s.next.Load() {
		panic("wire: Seal: counter was not reserved")
	}
	header := slot[:HeaderLen]
	header[0], header[1], header[2], header[3] = byte(KindData), byte(flags), 0, 0
	binary.BigEndian.PutUint32(header[4:], uint32(s.remote))
	binary.BigEndian.PutUint64(header[8:], counter)
	inner := slot[HeaderLen : len(slot)-TagLen]
	s.aead.Seal(inner[:0], scratch.set(counter), inner, header)
}

// A DataHeader is the part of data that is not encrypted.
type DataHeader struct {
	Flags    Flags
	Receiver Index
	Counter  uint64
}

// ParseData reads the header of data (§8). ok is false for what is too short for a tag, for flags nobody has
// defined and for a counter past the last.
func ParseData(b []byte) (h DataHeader, ok bool) {
	if len(b) < DataOverhead || b[0] != byte(KindData) || b[1]&^byte(knownFlags) != 0 || b[2]|b[3] != 0 {
		return DataHeader{}, false
	}
	h = DataHeader{
		Flags:    Flags(b[1]),
		Receiver: Index(binary.BigEndian.Uint32(b[4:])),
		Counter:  binary.BigEndian.Uint64(b[8:]),
	}
	return h, h.Counter < RejectAfterPackets
}

// An Opener opens one direction of one session. Many goroutines may use it at once.
type Opener struct {
	aead    cipher.AEAD
	retired atomic.Bool
}

// Open writes the inner bytes of data into dst[:0] and returns them, of length len(datagram) -
// DataOverhead. dst needs that capacity, else io.ErrShortBuffer; no byte beyond it is written. dst may lie anywhere but
// half over the datagram: datagram[HeaderLen:] itself is fine. It allocates nothing.
//
// Success says that the remote sealed these bytes and this header, but not that they are new: ask the Window.
// The other errors are ErrMalformed, ErrTag and, after Retire, ErrExhausted. With ErrTag what lay
// in dst is overwritten.
func (o *Opener) Open(dst, datagram []byte, scratch *Nonce) ([]byte, error) {
	h, ok := ParseData(datagram)
	if !ok {
		return nil, ErrMalformed
	}
	if cap(dst) < len(datagram)-DataOverhead {
		return nil, io.ErrShortBuffer
	}
	if o.retired.Load() {
		return nil, ErrExhausted
	}
	inner, err := o.aead.Open(dst[:0], scratch.set(h.Counter), datagram[HeaderLen:], datagram[:HeaderLen])
	if err != nil {
		return nil, ErrTag
	}
	return inner, nil
}

// Retire makes every later Open fail.
func (o *Opener) Retire() { o.retired.Store(true) }

// Inner says what the inner bytes of data are (§8).
type Inner uint8

const (
	InnerKeepalive Inner = iota // empty
	InnerPacket                 // an IP packet, by its first four bits; nothing more was looked at
	InnerControl                // a control message, for ParseControl
)

// InnerOf classifies the inner bytes of data.
func InnerOf(b []byte) Inner {
	if len(b) == 0 {
		return InnerKeepalive
	}
	if v := b[0] >> 4; v == 4 || v == 6 {
		return InnerPacket
	}
	return InnerControl
}
