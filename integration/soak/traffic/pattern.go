package traffic

import (
	"encoding/binary"
	"fmt"
)

// A Pattern is an endless sequence of bytes, another for each value. No stretch of some bytes of it is like another, nor
// like one of another pattern.
type Pattern uint64

// Fill writes the bytes that begin at off into b.
func (p Pattern) Fill(b []byte, off int64) {
	var word [8]byte
	for n := off / 8; len(b) > 0; n++ {
		binary.LittleEndian.PutUint64(word[:], p.word(uint64(n)))
		k := copy(b, word[off%8:])
		b, off = b[k:], off+int64(k)
	}
}

// Check compares b with the bytes that begin at off.
func (p Pattern) Check(b []byte, off int64) error {
	var word [8]byte
	for n := off / 8; len(b) > 0; n++ {
		binary.LittleEndian.PutUint64(word[:], p.word(uint64(n)))
		for _, want := range word[off%8:] {
			if len(b) == 0 {
				break
			}
			if b[0] != want {
				return fmt.Errorf("byte %d is %#x, want %#x", off, b[0], want)
			}
			b, off = b[1:], off+1
		}
	}
	return nil
}

// word is the n-th eight bytes: SplitMix64, whose outputs for one seed never repeat.
func (p Pattern) word(n uint64) uint64 {
	z := uint64(p) + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
