package socks

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// restBuffer is what each direction of a connection holds while it has
	// nothing, or little at a time, to carry.
	restBuffer = 1 << 10

	// burstBuffer is lent to a direction while data fills it; fewer, larger
	// reads and writes are what bulk transfer gains from. Where many are lent
	// already, crowdBuffer has to do: with many connections each carries little.
	burstBuffer = 256 << 10
	crowdBuffer = 16 << 10

	// maxBursts and maxCrowded bound the buffers lent at one time (48 MB), since
	// a reader that stalls keeps its own. Beyond them, directions make do with
	// restBuffer.
	maxBursts  = 128
	maxCrowded = 1024

	// burstLinger is how long a direction may keep its large buffer before it
	// has to ask anew.
	burstLinger = 100 * time.Millisecond
)

// relay carries bytes between a client and its target until both directions
// have ended or one has failed.
//
// The end of one direction's stream is passed on by CloseWrite and leaves the
// other direction running. An error in either ends both, with a reset.
type relay struct {
	s         *Server
	client    *client
	target    *target
	idle      *idleWatch
	abortOnce sync.Once
	running   atomic.Int32 // directions
}

// relay begins to carry and returns. When the connection is over both sides
// are closed and the client is released. early is what the client already sent
// beyond its request.
//
// Each direction has a goroutine of its own that does nothing else: what the
// handshake needed of a stack would be held for as long as the connection is
// idle.
func (s *Server) relay(c *client, early []byte, t *target) {
	r := &relay{s: s, client: c, target: t}
	r.idle = watchIdle(s.idleTimeout(), r.idleTooLong)
	r.running.Store(2)
	go r.up(early)
	go r.down()
}

func (r *relay) up(early []byte) {
	r.carry(r.target.Conn, r.client.Conn, early, &r.s.counters.bytesToTarget)
	r.ended()
}

func (r *relay) down() {
	r.carry(r.client.Conn, r.target.Conn, nil, &r.s.counters.bytesToClient)
	r.ended()
}

// ended ends the connection after the second direction.
func (r *relay) ended() {
	if r.running.Add(-1) > 0 {
		return
	}
	r.idle.stop()
	r.target.Close()
	r.client.release()
}

// carry runs one direction, the end of its stream included.
func (r *relay) carry(dst, src net.Conn, early []byte, moved *atomic.Uint64) {
	c := &carrier{relay: r, dst: dst, src: src, moved: moved}
	err := c.write(early)
	if err == nil {
		err = c.run()
	}
	if err == io.EOF {
		err = closeWrite(dst)
	}
	if err != nil {
		r.abort(err)
	}
}

// closeWrite tells conn's other end that no more will come.
func closeWrite(conn net.Conn) error {
	if cw, ok := conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	// There is no way to say so, and the other end may wait for it for ever.
	return conn.Close()
}

// abort ends both directions after an error in one.
func (r *relay) abort(err error) {
	r.abortOnce.Do(func() {
		ours := errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
		if ours && r.s.ctx.Err() == nil {
			// closeWrite had to close: an end, not a failure.
			r.client.Conn.Close()
			r.target.Conn.Close()
			return
		}
		if !ours { // else Server.Close is closing, one side after the other
			r.s.counters.broken.Add(1)
			r.s.logger.Debug("proxy connection broke", "client", r.client.RemoteAddr(), "err", err)
		}
		reset(r.client.Conn)
		reset(r.target.Conn)
	})
}

func (r *relay) idleTooLong() {
	r.abortOnce.Do(func() {
		r.s.counters.idle.Add(1)
		reset(r.client.Conn)
		reset(r.target.Conn)
	})
}

// carrier is one direction of a relay; only its goroutine touches it.
type carrier struct {
	*relay
	dst, src net.Conn
	moved    *atomic.Uint64
}

func (c *carrier) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	c.idle.touch()
	n, err := c.dst.Write(b)
	c.moved.Add(uint64(n))
	c.idle.touch()
	return err
}

// run copies with the small buffer, and with a large one whenever a read has
// filled the small. The error at the end of the stream is io.EOF.
func (c *carrier) run() error {
	rest := make([]byte, restBuffer)
	for {
		n, err := c.src.Read(rest)
		if werr := c.write(rest[:n]); werr != nil {
			return werr
		}
		if err == nil && n == len(rest) {
			err = c.burst()
		}
		if err != nil {
			return err
		}
	}
}

// burst copies with a large buffer for as long as there is enough to carry. It
// returns nil when the small buffer will do again.
//
// A read that blocks would keep the buffer, so reads have a deadline here. It
// is one for the whole burst, which costs nothing while data flows; if there is
// more to carry when it passes, run begins another.
func (c *carrier) burst() error {
	buf, put := c.s.bursts.get()
	if buf == nil {
		return nil
	}
	defer put()
	if c.src.SetReadDeadline(time.Now().Add(burstLinger)) != nil {
		return nil
	}
	defer c.src.SetReadDeadline(time.Time{}) // an error shows at the next read

	for {
		n, err := c.src.Read(buf)
		if werr := c.write(buf[:n]); werr != nil {
			return werr
		}
		if err != nil && !deadlinePassed(err) {
			return err
		}
		if err != nil || n < restBuffer {
			return nil
		}
	}
}

// deadlinePassed tells the deadline set here from a connection that timed
// out by itself, which also calls itself a timeout but will not come back.
func deadlinePassed(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var t net.Error
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// burstBuffers lends out large buffers, a bounded number at a time; those not
// in use are left to the garbage collector.
type burstBuffers struct {
	large, small burstPool
}

type burstPool struct {
	size  int
	slots chan struct{}
	free  sync.Pool // of *[]byte
}

func (b *burstBuffers) init() {
	b.large = burstPool{size: burstBuffer, slots: make(chan struct{}, maxBursts)}
	b.small = burstPool{size: crowdBuffer, slots: make(chan struct{}, maxCrowded)}
}

// get returns nil when too many are lent out; else put gives the buffer back.
func (b *burstBuffers) get() (buf []byte, put func()) {
	if buf, put = b.large.get(); buf != nil {
		return buf, put
	}
	return b.small.get()
}

func (p *burstPool) get() ([]byte, func()) {
	select {
	case p.slots <- struct{}{}:
	default:
		return nil, nil
	}
	buf, ok := p.free.Get().(*[]byte)
	if !ok {
		b := make([]byte, p.size)
		buf = &b
	}
	return *buf, func() {
		p.free.Put(buf)
		<-p.slots
	}
}
