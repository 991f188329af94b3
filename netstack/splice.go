package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// Between a kernel's socket and the stack, 256 KB at a time copies twice as fast as 32 KB.
	burstBuffer = 256 << 10
	idleBuffer  = 4 << 10

	// burstIdle is how long a copy may wait for data and keep its large buffer.
	burstIdle = 100 * time.Millisecond
)

var burstBuffers = sync.Pool{New: func() any { b := make([]byte, burstBuffer); return &b }}

// splice copies between two connections both ways until both have ended, or one failed, or ctx ended. The end of one
// direction is passed on as such and leaves the other open; a failure resets both sides.
func splice(ctx context.Context, near, far net.Conn) {
	defer onDone(ctx, func() { resetConn(near); resetConn(far) })()
	direction := func(dst, src net.Conn) {
		if err := carry(dst, src); err != nil {
			resetConn(dst)
			resetConn(src)
		}
	}
	var back sync.WaitGroup
	back.Go(func() { direction(near, far) })
	direction(far, near)
	back.Wait()
	near.Close()
	far.Close()
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

// copyBurst copies with a large buffer until nothing comes for a while, which is no error.
func copyBurst(dst io.Writer, src net.Conn) error {
	buf := burstBuffers.Get().(*[]byte)
	defer burstBuffers.Put(buf)
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
