package traffic

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A stream begins with who dials, and by which pattern:
//
//	length 1 || name || pattern 8
//
// Then both ends send frames, the dialler's bytes by the pattern, the other's by its complement:
//
//	length 4, not zero || bytes
//	0 4 || how many bytes came the other way 8          the last
//
// The dialler's last frame and end of stream come first; the count in the answer is to be what it sent.

const (
	maxFrame = 8 << 10
	burst    = 1 << 20 // is sent without a pause now and then

	// deadAfter is how long a stream may be silent while things are done to the network. No blow lasts long, but TCP waits
	// twice as long before each attempt, from seconds if it has seen packets that were late by as much, and each attempt may
	// meet another blow. So nothing less than the quarter of an hour after which systems give up shows that it is dead.
	deadAfter = 20 * time.Minute

	// EndLimit is how long it may take to end once nothing is done any more, a little more than the two minutes that TCP waits at
	// most.
	EndLimit = 3 * time.Minute

	dialTimeout = 10 * time.Second
	again       = 200 * time.Millisecond // after a connection was lost
)

// errWrong is the root of errors about bytes that arrived.
var errWrong = errors.New("wrong bytes")

// stream is the life of one connection. Its end is in order when ctx ends.
func (f *flow) stream(ctx context.Context) {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	began := time.Now()
	c, err := f.agent.net.DialContext(dial, "tcp", f.at(StreamPort))
	if err != nil {
		return // it is tried again; that it succeeds in time is what requests are for
	}
	defer c.Close()
	count := &f.agent.count
	count.Streams.Add(1)
	p := Pattern(rand.Uint64())
	hello := append([]byte{byte(len(f.agent.name))}, f.agent.name...)
	hello = binary.BigEndian.AppendUint64(hello, uint64(p))
	c.SetWriteDeadline(time.Now().Add(deadAfter))
	if _, err := c.Write(hello); err != nil {
		f.find(Broken, began, err)
		return
	}
	t := &talk{
		conn: c, out: p, in: ^p, rate: f.pace.Stream, stop: ctx.Done(), first: true,
		moved: func(n int, stood time.Duration) { count.moved(n, stood); f.succeeded(time.Now()) },
	}
	f.talk.Store(t)
	err = t.run()
	if err == nil {
		return
	}
	what := Broken
	switch {
	case errors.Is(err, errWrong):
		what = WrongBytes
	case ctx.Err() != nil:
		what = Unending
	}
	f.find(what, began, fmt.Errorf("%w (%s)", err, t.standing()))
}

// A talk is one end of a stream after the hello.
type talk struct {
	conn    net.Conn
	out, in Pattern
	rate    int                              // bytes a second to send
	stop    <-chan struct{}                  // closed when it is time for the last frame
	first   bool                             // ours is the first last frame
	moved   func(n int, stood time.Duration) // called with bytes that were right, and how long none had come before

	sent     atomic.Int64
	received int64
	ended    chan struct{} // closed when the other's last frame has come

	wrote, read, last atomic.Int64 // when, in Unix time of nanoseconds, zero for never: anything was, and our last frame

	mu     sync.Mutex
	err    error         // why it failed, the first reason
	failed chan struct{} // closed with it
}

// standing says when anything moved last.
func (t *talk) standing() string {
	ago := func(at *atomic.Int64) string {
		if ns := at.Load(); ns != 0 {
			return time.Since(time.Unix(0, ns)).Round(time.Second/10).String() + " ago"
		}
		return "never"
	}
	return fmt.Sprintf("from %v to %v: %d bytes sent, the last %s, the last frame %s; received the last %s",
		t.conn.LocalAddr(), t.conn.RemoteAddr(), t.sent.Load(), ago(&t.wrote), ago(&t.last), ago(&t.read))
}

// run returns nil when both ends have ended in order.
func (t *talk) run() error {
	t.ended, t.failed = make(chan struct{}), make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { t.fail(t.send()) })
	both.Go(func() { t.fail(t.receive()) })
	both.Wait()
	return t.err
}

// fail ends both directions, unless err is nil.
func (t *talk) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil || t.err != nil {
		return
	}
	t.err = err
	close(t.failed)
	t.conn.Close()
}

func (t *talk) send() error {
	b := make([]byte, 4+maxFrame)
	free := 0 // bytes left of a burst
	begin, paced := time.Now(), int64(0)
	for {
		n := 1 + rand.IntN(maxFrame)
		if rand.IntN(4) == 0 {
			n = 1 + n%100
		}
		binary.BigEndian.PutUint32(b, uint32(n))
		t.out.Fill(b[4:4+n], t.sent.Load())
		if err := t.write(b[:4+n]); err != nil {
			return err
		}
		t.sent.Add(int64(n))
		wait := time.Duration(0)
		switch {
		case free > 0:
			free -= n
		case rand.IntN(1000) == 0:
			free = burst
		default:
			paced += int64(n)
			due := begin.Add(time.Duration(float64(paced) / float64(t.rate) * float64(time.Second)))
			if wait = time.Until(due); wait < -time.Second { // what an outage has held up is not caught up with
				begin, paced = time.Now(), 0
			}
		}
		stop := t.stop
		if !t.first {
			stop = t.ended
		}
		timer := time.NewTimer(max(0, wait))
		select {
		case <-timer.C:
			continue
		case <-t.failed:
			timer.Stop()
			return nil
		case <-stop:
			timer.Stop()
		}
		break
	}
	last := binary.BigEndian.AppendUint64(make([]byte, 4, 12), 0)
	if !t.first {
		binary.BigEndian.PutUint64(last[4:], uint64(t.received)) // complete: the other's last frame has come
	}
	if err := t.write(last); err != nil {
		return err
	}
	t.last.Store(time.Now().UnixNano())
	return closeWrite(t.conn)
}

func (t *talk) write(b []byte) error {
	t.conn.SetWriteDeadline(time.Now().Add(deadAfter))
	if _, err := t.conn.Write(b); err != nil {
		return fmt.Errorf("sending after %d bytes: %w", t.sent.Load(), err)
	}
	t.wrote.Store(time.Now().UnixNano())
	return nil
}

func (t *talk) receive() error {
	r := bufio.NewReaderSize(t.conn, maxFrame)
	b := make([]byte, maxFrame)
	for {
		began := time.Now()
		t.conn.SetReadDeadline(began.Add(deadAfter))
		if _, err := io.ReadFull(r, b[:4]); err != nil {
			return fmt.Errorf("receiving after %d bytes: %w", t.received, err)
		}
		t.read.Store(time.Now().UnixNano())
		n := binary.BigEndian.Uint32(b)
		if n == 0 {
			break
		}
		if n > maxFrame {
			return fmt.Errorf("%w: a frame of %d bytes after %d", errWrong, n, t.received)
		}
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return fmt.Errorf("receiving after %d bytes: %w", t.received, err)
		}
		if err := t.in.Check(b[:n], t.received); err != nil {
			return fmt.Errorf("%w: %w", errWrong, err)
		}
		t.received += int64(n)
		t.moved(int(n), time.Since(began))
	}
	if _, err := io.ReadFull(r, b[:8]); err != nil {
		return fmt.Errorf("receiving the count: %w", err)
	}
	if got := int64(binary.BigEndian.Uint64(b)); t.first && got != t.sent.Load() { // ours is sent: theirs answers it
		return fmt.Errorf("%w: the other end received %d bytes of %d", errWrong, got, t.sent.Load())
	}
	close(t.ended)
	if n, err := r.Read(b); err != io.EOF {
		if err == nil {
			return fmt.Errorf("%w: %d bytes after the last", errWrong, n)
		}
		return fmt.Errorf("receiving the end: %w", err)
	}
	return nil
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("%T has no CloseWrite", c)
}
