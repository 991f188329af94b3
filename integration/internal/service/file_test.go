package service

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFileComparesWithItself(t *testing.T) {
	const size = 10*blockSize + 17
	whole, err := io.ReadAll(File(size))
	if err != nil || len(whole) != size {
		t.Fatalf("read %d bytes (%v), want %d", len(whole), err, size)
	}
	if n := bytes.Count(whole, []byte(Marker)); n != 11-1 {
		t.Errorf("the marker is in the file %d times, want once in each of 10 whole blocks", n)
	}
	if _, err := io.Copy(&Comparison{}, iotest.OneByteReader(File(size))); err != nil {
		t.Errorf("read byte by byte: %v", err)
	}
}

func TestComparisonFindsFaults(t *testing.T) {
	whole, _ := io.ReadAll(File(4 * blockSize))
	swapped := append(bytes.Clone(whole[blockSize:2*blockSize]), whole[:blockSize]...)
	flipped := bytes.Clone(whole)
	flipped[3000] ^= 1
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"blocks exchanged": {swapped, "byte 7 "},
		"one bit":          {flipped, "byte 3000 "},
		"one byte missing": {append(bytes.Clone(whole[:100]), whole[101:]...), "byte 10"},
	} {
		if _, err := (&Comparison{}).Write(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one about %q", name, err, c.want)
		}
	}
}
