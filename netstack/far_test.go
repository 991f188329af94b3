package netstack

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// stream keeps a writing and b reading for a time, as programs do that have nothing else to do. It returns
// what b has read, and the longest time without anything.
func (p *farPair) stream(d time.Duration, each func()) (n int, gap time.Duration) {
	writable := true
	entry := waiter.NewFunctionEntry(waiter.WritableEvents, func(waiter.EventMask) { writable = true })
	p.a.wq.EventRegister(&entry)
	defer p.a.wq.EventUnregister(&entry)
	buf := make([]byte, 128<<10)
	drained := 0
	last := p.elapsed()
	step := func() {
		for writable {
			_, err := p.a.ep.Write(bytes.NewReader(buf), tcpip.WriteOptions{})
			writable = err == nil
		}
		for {
			into := tcpip.SliceWriter(buf)
			r, err := p.b.ep.Read(&into, tcpip.ReadOptions{})
			if err != nil {
				break
			}
			if drained += r.Count; drained >= moderateAfter {
				p.b.ep.(*tcp.Endpoint).ModerateRecvBuf(drained)
				drained = 0
			}
			n += r.Count
			gap = max(gap, p.elapsed()-last)
			last = p.elapsed()
		}
		each()
	}
	step()
	p.run(d, step)
	return n, max(gap, p.elapsed()-last)
}

// steady is what a TCP reaches by adding a segment a round trip and halving at each loss, in Mbit/s (Mathis and others,
// "The macroscopic behavior of the TCP congestion avoidance algorithm").
func steady(rtt time.Duration, loss float64) float64 {
	const segment = 1320
	return segment * 8 / rtt.Seconds() * math.Sqrt(1.5/loss) / 1e6
}

// What a stream must reach is well below what it does, and above what it did with options that look as good.
func TestFarLine(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		line   farLine
		d      time.Duration
		seeds  int
		mbit   float64 // at least, on average
		resent float64 // for each segment lost, at most; 0: any
	}{
		{farLine{rtt: 1 * ms, loss: 0.01}, 500 * ms, 1, 0.8 * steady(1*ms, 0.01), 1.2},
		{farLine{rtt: 20 * ms, loss: 0.001}, 2000 * ms, 2, steady(20*ms, 0.001), 1.5},
		{farLine{rtt: 20 * ms, loss: 0.01}, 4000 * ms, 2, steady(20*ms, 0.01), 1.2},
		{farLine{rtt: 100 * ms, loss: 0.001}, 4000 * ms, 2, 2 * steady(100*ms, 0.001), 0},
		{farLine{rtt: 100 * ms, loss: 0.01}, 4000 * ms, 4, steady(100*ms, 0.01), 0},
		{farLine{rtt: 200 * ms, loss: 0.005}, 4000 * ms, 4, steady(200*ms, 0.005), 0},
		{farLine{rtt: 200 * ms, loss: 0.01}, 4000 * ms, 2, steady(200*ms, 0.01), 0},

		// Nothing is lost: buffers decide.
		{farLine{rtt: 100 * ms}, 2500 * ms, 1, 170, 0},

		// A line that is full, with a queue of half a round trip: losses come in hundreds.
		{farLine{rtt: 20 * ms, rate: 50e6, queue: 10 * ms}, 2000 * ms, 1, 25, 0},
		{farLine{rtt: 100 * ms, rate: 50e6, queue: 50 * ms}, 4000 * ms, 1, 30, 0},
	} {
		name := fmt.Sprintf("%v, %g %% lost", c.line.rtt, c.line.loss*100)
		if c.line.rate != 0 {
			name = fmt.Sprintf("%v, %g Mbit/s", c.line.rtt, c.line.rate/1e6)
		}
		t.Run(name, func(t *testing.T) {
			total, lost, resent := 0, 0, 0
			for seed := range c.seeds {
				c.line.seed = uint64(seed)
				p := newFarPair(t, c.line)
				n, gap := p.stream(c.d, func() {})
				if gap >= 2*time.Second {
					t.Errorf("seed %d: nothing for %v", seed, gap)
				}
				total += n
				lost += p.a.lost
				resent += int(p.a.s.ip.g.Stats().TCP.Retransmits.Value())
			}
			mbit := float64(total) * 8 / c.d.Seconds() / 1e6 / float64(c.seeds)
			t.Logf("%.2f Mbit/s, want %.2f; %d segments lost, %d sent again", mbit, c.mbit, lost, resent)
			if mbit < c.mbit {
				t.Errorf("%.2f Mbit/s, want %.2f", mbit, c.mbit)
			}
			if c.resent != 0 && float64(resent) > c.resent*float64(lost) {
				t.Errorf("%d segments lost, %d sent again", lost, resent)
			}
		})
	}
}

// An answer that is lost is sent again, however busy the connection is the other way.
func TestAnswerBesideStream(t *testing.T) {
	const rtt = 20 * time.Millisecond
	losses := 2
	p := newFarPair(t, farLine{rtt: rtt, rate: 20e6, drop: func(from *farEnd, payload int) bool {
		if from.peer.ep == nil || from != from.pair.b || payload == 0 || losses == 0 {
			return false
		}
		losses--
		return true
	}})
	const after = time.Second // into the stream
	start := p.elapsed()
	asked, answered := false, time.Duration(0)
	p.stream(4*time.Second, func() {
		now := p.elapsed() - start
		if !asked && now >= after {
			asked = true
			p.b.ep.Write(bytes.NewReader([]byte("x")), tcpip.WriteOptions{})
		}
		var into bytes.Buffer
		if _, err := p.a.ep.Read(&into, tcpip.ReadOptions{}); err == nil {
			answered = now
		}
	})
	switch {
	case answered == 0:
		t.Error("the answer never came")
	case answered-after > 2*time.Second:
		t.Errorf("the answer took %v", answered-after)
	}
	if losses != 0 {
		t.Errorf("%d losses did not take place", losses)
	}
}

// While there is a far connection the stack's buffers may grow further, and afterwards no longer.
func TestFarBuffers(t *testing.T) {
	p := newFarPair(t, farLine{rtt: farFrom})
	s := p.a.s
	limit := func() int {
		var o tcpip.TCPReceiveBufferSizeRangeOption
		if err := s.ip.g.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		return o.Max
	}
	if limit() != farBuffer {
		t.Errorf("a far connection: buffers up to %d bytes, want %d", limit(), farBuffer)
	}
	s.far.leave(s)
	if limit() != nearBuffer {
		t.Errorf("no far connection: buffers up to %d bytes, want %d", limit(), nearBuffer)
	}
	if near := newFarPair(t, farLine{rtt: farFrom / 2}).a.s; near.far.conns != 0 {
		t.Error("a near connection is taken for a far one")
	}
}
