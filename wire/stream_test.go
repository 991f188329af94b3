package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// stream is a reader of bytes that look random and are always the same: SHA-256 of seed and block number.
type stream struct {
	seed byte
	n    uint64
	rest []byte
}

func newStream(seed byte) io.Reader { return &stream{seed: seed} }

func (s *stream) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte{s.seed}, s.n))
		s.rest = sum[:]
		s.n++
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
