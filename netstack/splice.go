package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Between a kernel's socket and the stack, 256 KB at a time copies twice as fast as 32 KB. Where many copy at once each has
	// less to copy.
	burstBuffer = 256 << 10
	crowdBuffer = 16 << 10
	idleBuffer  = 1 << 10

	// burstIdle is how long a copy may wait for data and keep its large buffer.
	burstIdle = 100 * time.Millisecond

	// maxBursts and maxCrowded bound the buffers in use (48 MB): a reader that stalls keeps its own. Beyond them copies make do
	// with the idle one.
	maxBursts  = 128
	maxCrowded = 1024
)

// copyBuffers are a bounded number of buffers of one size.
type copyBuffers struct {
	slots chan struct{}
	pool  sync.Pool
}

var (
	burstBuffers = newCopyBuffers(maxBursts, burstBuffer)
	crowdBuffers = newCopyBuffers(maxCrowded, crowdBuffer)
)

func newCopyBuffers(n, size int) *copyBuffers {
	return &copyBuffers{
		slots: make(chan struct{}, n),
		pool:  sync.Pool{New: func() any { b := make([]byte, size); return &b }},
	}
}

// get returns nil when all are in use.
func (c *copyBuffers) get() *[]byte {
	select {
	case c.slots <- struct{}{}:
		return c.pool.Get().(*[]byte)
	default:
		return nil
	}
}

func (c *copyBuffers) put(b *[]byte) {
	c.pool.Put(b)
	<-c.slots
}

// A splice copies between two connections both ways until both have ended, or one failed, or its context ended. The end of
// one direction is passed on as such and leaves the other open; a failure resets both sides.
//
// Each direction has a goroutine of its own, begun for it alone: most connections are idle most of the time, and a deep
// stack would be kept for them.
type splice struct {
	near, far net.Conn
	undo      func()       // ends the watch on the context
	running   atomic.Int32 // directions
	over      func()
}

// startSplice begins to copy. Both connections are closed before over is called.
func startSplice(ctx context.Context, near, far net.Conn, over func()) {
	s := &splice{near: near, far: far, over: over}
	s.undo = onDone(ctx, s.reset)
	s.running.Store(2)
	go s.out()
	go s.back()
}

func (s *splice) out()  { s.carry(s.far, s.near) }
func (s *splice) back() { s.carry(s.near, s.far) }

func (s *splice) carry(dst, src net.Conn) {
	if err := carry(dst, src); err != nil {
		s.reset()
	}
	if s.running.Add(-1) > 0 {
		return
	}
	s.undo()
	s.near.Close()
	s.far.Close()
	s.over()
}

func (s *splice) reset() {
	resetConn(s.near)
	resetConn(s.far)
}

// onDone calls f when ctx ends. The function it returns undoes that, and waits for f if it is too late.
func onDone(ctx context.Context, f func()) (undo func()) {
	called := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(called)
		f()
	})
	return func() {
		if !stop() {
			<-called
		}
	}
}

// carry copies src to dst until src ends, and then ends dst's writing side.
func carry(dst, src net.Conn) error {
	if err := copyBursts(dst, src); err != nil {
		return err
	}
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		// The far end may have closed altogether: that is its affair.
		c.CloseWrite()
	}
	return nil
}

// copyBursts copies until io.EOF. It waits with a small buffer and takes a large one while there is much
// to copy, so that connections that are open but silent cost little.
func copyBursts(dst io.Writer, src net.Conn) error {
	small := make([]byte, idleBuffer)
	for {
		n, err := src.Read(small)
		if n > 0 {
			if _, werr := dst.Write(small[:n]); werr != nil {
				return werr
			}
		}
		if err == nil && n == len(small) {
			err = copyBurst(dst, src)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyBurst copies with a large buffer until nothing comes for a while, which is no error; not at all if too many are in
// use.
func copyBurst(dst io.Writer, src net.Conn) error {
	from := burstBuffers
	buf := from.get()
	if buf == nil {
		from = crowdBuffers
		buf = from.get()
	}
	if buf == nil {
		return nil
	}
	defer from.put(buf)
	for {
		src.SetReadDeadline(time.Now().Add(burstIdle))
		n, err := src.Read(*buf)
		if n > 0 {
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return src.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return err
		}
	}
}

// resetConn closes c so that its far end learns that something went wrong.
func resetConn(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}
