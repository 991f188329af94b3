package wire

import "encoding/binary"

// A reader takes a message apart from the front. After the first fault it is bad and yields zeros, so
// that a parser reads as the list of its fields.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) require(ok bool) {
	if !ok {
		r.bad = true
	}
}

// take returns the next n bytes, or none when there are not so many.
func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) rest() []byte { return r.take(len(r.b)) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) key() (k PublicKey) {
	copy(k[:], r.take(len(k)))
	r.require(k.Check() == nil)
	return k
}

// circuit takes a circuit id, which is not zero.
func (r *reader) circuit() CircuitID {
	c := CircuitID(r.uint64())
	r.require(c != 0)
	return c
}

func (r *reader) token() (t Token) {
	copy(t[:], r.take(len(t)))
	return t
}

func (r *reader) question() QuestionID { return QuestionID(r.uint32()) }
