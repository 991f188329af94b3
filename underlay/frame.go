package underlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is a datagram on a stream:
//
//	 0               2
//	+-------+-------+------- - - -
//	| length, big-  | datagram of
//	| endian        | length bytes
//	+-------+-------+------- - - -
//
// The length is 1 to MaxMessage.
const frameHeader = 2

// frameBuffer is how much a frameReader takes in at once: some full messages.
const frameBuffer = 128 << 10

func appendFrame(b, datagram []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(datagram)))
	return append(b, datagram...)
}

// frameReader takes a stream of frames apart.
type frameReader struct {
	r   io.Reader
	buf []byte
	// buf[next:end] is read and not handed out. What is before next is lent.
	next, end int
	err       error // of r, to be told when all before it is handed out
}

// read waits for frames and fills ms with what came. Adjacent frames of one size make one message,
// with a shorter one at the end, as UDP_GRO would have it. An error is final.
func (f *frameReader) read(ms []Message) (int, error) {
	if f.buf == nil {
		f.buf = make([]byte, frameBuffer)
	}
	for {
		n, err := f.take(ms)
		if n > 0 || err != nil {
			return n, err
		}
		if f.err != nil {
			return 0, f.ended()
		}
		f.fill()
	}
}

// take hands out the frames that are there whole.
func (f *frameReader) take(ms []Message) (int, error) {
	for n := range ms {
		d, err := f.frame()
		if d == nil {
			if n > 0 {
				err = nil // to be found again by the next call
			}
			return n, err
		}
		ms[n] = f.gather(d)
	}
	return len(ms), nil
}

// gather takes the frame that d is in off the buffer, and all those behind it that fit into one
// message with it. Their datagrams are moved together, over the lengths between them.
func (f *frameReader) gather(d []byte) Message {
	f.next += frameHeader
	begin, end := f.next, f.next+len(d)
	f.next = end
	last := len(d)
	for count := 1; count < MaxSegments && last == len(d); count++ {
		more, _ := f.frame()
		if more == nil || len(more) > len(d) || end-begin+len(more) > MaxMessage {
			break
		}
		last = len(more)
		end += copy(f.buf[end:], more)
		f.next += frameHeader + last
	}
	return Message{Buf: f.buf[begin:end:end], Seg: len(d)}
}

// frame returns the datagram of the next frame without taking it, or nil if it is not there
// whole. An error says that this is no frame.
func (f *frameReader) frame() ([]byte, error) {
	rest := f.buf[f.next:f.end]
	if len(rest) < frameHeader {
		return nil, nil
	}
	n := int(binary.BigEndian.Uint16(rest))
	if n == 0 || n > MaxMessage {
		return nil, fmt.Errorf("a frame of %d bytes, which must be 1 to %d", n, MaxMessage)
	}
	if len(rest) < frameHeader+n {
		return nil, nil
	}
	return rest[frameHeader:][:n], nil
}

// fill reads once more, over what was lent. There is always room, as only the beginning of one
// frame is left.
func (f *frameReader) fill() {
	if f.next > 0 { // not again for every few bytes of a long frame
		f.end = copy(f.buf, f.buf[f.next:f.end])
		f.next = 0
	}
	const patience = 100
	for range patience {
		n, err := f.r.Read(f.buf[f.end:])
		f.end += n
		f.err = err
		if n > 0 || err != nil {
			return
		}
	}
	f.err = io.ErrNoProgress
}

// ended is the error after the last whole frame.
func (f *frameReader) ended() error {
	if f.end > f.next && errors.Is(f.err, io.EOF) {
		return fmt.Errorf("in the middle of a frame: %w", io.ErrUnexpectedEOF)
	}
	return f.err
}
