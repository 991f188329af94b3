// Package service is what the members of a lab's overlay ask of each other: files, echoes of TCP
// and UDP, and the address a request came from.
package service

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Marker is in every block of a file, and so in nearly every packet that carries one: where it can be read, the
// overlay is in the clear.
const Marker = "this sentence is to be read inside the overlay alone"

const blockSize = 1 << 10

// template is random, so that nothing on the way can shorten it, and the same in every process.
var template = func() (b [blockSize]byte) {
	rand.NewChaCha8([32]byte{1}).Read(b[:])
	copy(b[8:], Marker)
	return b
}()

// fill writes the bytes of a file that begin at off into p: blocks that differ in their number only, so
// that a piece in the wrong place is not the right piece.
func fill(p []byte, off int64) {
	for len(p) > 0 {
		block := template
		binary.BigEndian.PutUint64(block[:], uint64(off/blockSize))
		n := copy(p, block[off%blockSize:])
		p, off = p[n:], off+int64(n)
	}
}

// File reads the file of size bytes.
func File(size int64) io.Reader { return &file{size: size} }

type file struct{ at, size int64 }

func (f *file) Read(p []byte) (int, error) {
	if f.at >= f.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), f.size-f.at)]
	fill(p, f.at)
	f.at += int64(len(p))
	return len(p), nil
}

// A Comparison is written what was received of a file, and fails at the first byte that is not the file's.
type Comparison struct {
	at   int64
	want []byte
}

// Write compares p with what comes next in the file.
func (c *Comparison) Write(p []byte) (int, error) {
	if len(c.want) < len(p) {
		c.want = make([]byte, len(p))
	}
	want := c.want[:len(p)]
	fill(want, c.at)
	if !bytes.Equal(p, want) {
		i := 0
		for p[i] == want[i] {
			i++
		}
		return i, fmt.Errorf("byte %d of the file is %#x, want %#x", c.at+int64(i), p[i], want[i])
	}
	c.at += int64(len(p))
	return len(p), nil
}
