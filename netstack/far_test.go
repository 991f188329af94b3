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

// A way is one direction of a connection between programs that write and read as fast as they can.
type way struct {
	from, to *farEnd
	writable bool
	buf      []byte
	drained  int           // read since the stack was told
	read     int           // by to
	last     time.Duration // when it was
	gap      time.Duration // the longest time without anything
}

func newWay(from, to *farEnd) (w *way, end func()) {
	w = &way{from: from, to: to, writable: true, buf: make([]byte, 128<<10), last: from.pair.elapsed()}
	entry := waiter.NewFunctionEntry(waiter.WritableEvents, func(waiter.EventMask) { w.writable = true })
	from.wq.EventRegister(&entry)
	return w, func() { from.wq.EventUnregister(&entry) }
}

// step does what the programs can do at this time.
func (w *way) step() {
	for w.writable {
		_, err := w.from.ep.Write(bytes.NewReader(w.buf), tcpip.WriteOptions{})
		w.writable = err == nil
	}
	now := w.from.pair.elapsed()
	w.gap = max(w.gap, now-w.last)
	for {
		into := tcpip.SliceWriter(w.buf)
		r, err := w.to.ep.Read(&into, tcpip.ReadOptions{})
		if err != nil {
			return
		}
		if w.drained += r.Count; w.drained >= moderateAfter {
			w.to.ep.(*tcp.Endpoint).ModerateRecvBuf(w.drained)
			w.drained = 0
		}
		w.read += r.Count
		w.last = now
	}
}

// stream keeps a writing and b reading for a time. It returns what b has read, and the longest time without
// anything.
func (p *farPair) stream(d time.Duration, each func()) (n int, gap time.Duration) {
	w, end := newWay(p.a, p.b)
	defer end()
	w.step()
	p.run(d, func() { w.step(); each() })
	return w.read, max(w.gap, p.elapsed()-w.last)
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

// However far the end, whatever is lost and out of order, and whatever goes the other way: a stream is never
// silent for two seconds, which is when people and programs give up.
func TestNoStreamStallsForTwoSeconds(t *testing.T) {
	const ms = time.Millisecond
	for _, rtt := range []time.Duration{0, 1 * ms, 50 * ms, 200 * ms} {
		for _, loss := range []float64{0, 0.001, 0.01, 0.03} {
			for _, late := range []float64{0, 0.02} {
				line := farLine{rtt: rtt, rate: 10e6, loss: loss, late: late}
				long := 3 * time.Second
				if rtt >= 50*ms && loss > 0 {
					long = 16 * time.Second // little is under way, and it is soon done
				}
				if testing.Short() && rtt == 1*ms {
					continue // much as without any
				}
				t.Run(fmt.Sprintf("%v, %g %% lost, %g %% late", rtt, loss*100, late*100), func(t *testing.T) {
					t.Parallel()
					noStall(t, line, long, false)
					noStall(t, line, long, true)
				})
			}
		}
	}
}

// noStall runs a stream from a to b, or one each way by the same connection.
func noStall(t *testing.T, line farLine, long time.Duration, both bool) {
	t.Helper()
	p := newFarPair(t, line)
	there, end := newWay(p.a, p.b)
	defer end()
	ways := []*way{there}
	if both {
		back, end := newWay(p.b, p.a)
		defer end()
		ways = append(ways, back)
	}
	step := func() {
		for _, w := range ways {
			w.step()
		}
	}
	step()
	p.run(long, step)
	for i, w := range ways {
		gap := max(w.gap, p.elapsed()-w.last)
		t.Logf("way %d of %d: %.2f Mbit/s, at most %v of silence; %d segments lost", i+1, len(ways),
			float64(w.read)*8/long.Seconds()/1e6, gap, w.from.lost)
		if gap > 2*time.Second {
			t.Errorf("nothing for %v", gap)
		}
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

// The first packets of a connection may wait for a session. That is not how far it is to the far end.
func TestHandshakeThatWaitedLeavesNoLongTimeout(t *testing.T) {
	p := newFarPair(t, farLine{rtt: 8 * time.Second})
	p.line.rtt = time.Millisecond
	for i, lose := range []bool{false, false, true} {
		lost := 0
		p.line.drop = func(from *farEnd, payload int) bool {
			if lose && lost == 0 && from == p.a && payload > 0 {
				lost++
				return true
			}
			return false
		}
		if _, err := p.a.ep.Write(bytes.NewReader([]byte("x")), tcpip.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		sent, took := p.elapsed(), time.Duration(0)
		p.run(time.Minute, func() {
			if _, err := p.b.ep.Read(&bytes.Buffer{}, tcpip.ReadOptions{}); err == nil {
				took = p.elapsed() - sent
			}
		})
		if took == 0 || took > 5*time.Second || (lost > 0) != lose {
			t.Errorf("byte %d takes %v, and was lost %d times", i, took, lost)
		}
	}
}
