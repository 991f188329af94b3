package netstack

import (
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func fill(t *testing.T, q *sendQueue, pkt *stack.PacketBuffer) {
	t.Helper()
	for range queueSlots {
		if !q.put(pkt) {
			t.Fatal("dropped with room left")
		}
	}
}

func TestFullQueueWaitsThenDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue()
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
		fill(t, q, pkt)
		start := time.Now()
		if q.put(pkt) || time.Since(start) != queuePatience {
			t.Errorf("gave up after %v, want %v", time.Since(start), queuePatience)
		}
		start = time.Now()
		if q.put(pkt) || time.Since(start) != 0 {
			t.Errorf("waited %v more though nobody reads", time.Since(start))
		}
		q.take(make([]*stack.PacketBuffer, 1), math.MaxInt)
		if !q.put(pkt) {
			t.Error("dropped though there is room again")
		}
		start = time.Now()
		if q.put(pkt) || time.Since(start) != queuePatience {
			t.Errorf("waited %v though the reader is back, want %v", time.Since(start), queuePatience)
		}
	})
}

func TestWaitingSendersGetRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue()
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
		fill(t, q, pkt)
		start := time.Now()
		var senders sync.WaitGroup
		for range 40 {
			senders.Go(func() {
				if !q.put(pkt) {
					t.Error("dropped though room was made in time")
				}
			})
		}
		synctest.Wait()
		time.Sleep(queuePatience / 2)
		into := make([]*stack.PacketBuffer, readBatch)
		for range 2 {
			if n, err := q.take(into, math.MaxInt); n != readBatch || err != nil {
				t.Fatalf("took %d, %v", n, err)
			}
		}
		senders.Wait()
		if waited := time.Since(start); waited != queuePatience/2 {
			t.Errorf("the last sender waited %v though there was room after %v", waited, queuePatience/2)
		}
	})
}

// Far more senders wait than a slow reader makes room for within their patience.
func TestSendersStandInLineWhileTheReaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders = 40
		q := newSendQueue()
		fill(t, q, stack.NewPacketBuffer(stack.PacketBufferOptions{}))
		var all sync.WaitGroup
		var pkts [senders]*stack.PacketBuffer
		for i := range pkts {
			pkts[i] = stack.NewPacketBuffer(stack.PacketBufferOptions{})
			all.Go(func() {
				if !q.put(pkts[i]) {
					t.Errorf("packet %d dropped though the reader goes on", i)
				}
			})
			synctest.Wait()
		}
		var taken []*stack.PacketBuffer
		take := func(most int) {
			into := make([]*stack.PacketBuffer, most)
			n, err := q.take(into, math.MaxInt)
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, into[:n]...)
		}
		for range senders {
			time.Sleep(queuePatience - 1)
			take(1)
		}
		all.Wait()
		take(queueSlots)
		if got := taken[queueSlots:]; !slices.Equal(got, pkts[:]) {
			t.Errorf("%d packets came in another order than their senders", len(got))
		}
	})
}

// There is room for one that waits, and it has not noticed yet when another comes.
func TestNoSenderOvertakesOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue()
		fill(t, q, stack.NewPacketBuffer(stack.PacketBufferOptions{}))
		early, late := stack.NewPacketBuffer(stack.PacketBufferOptions{}), stack.NewPacketBuffer(stack.PacketBufferOptions{})
		var both sync.WaitGroup
		both.Go(func() { q.put(early) })
		synctest.Wait()
		q.mu.Lock()
		q.head, q.n = (q.head+2)%queueSlots, q.n-2
		q.mu.Unlock()
		both.Go(func() { q.put(late) })
		synctest.Wait()
		q.mu.Lock()
		q.callFirst()
		q.mu.Unlock()
		both.Wait()
		into := make([]*stack.PacketBuffer, queueSlots+1)
		n, err := q.take(into, math.MaxInt)
		if err != nil || n != queueSlots || into[n-2] != early || into[n-1] != late {
			t.Errorf("took %d, %v; the early one next to last: %t", n, err, into[n-2] == early)
		}
	})
}

func TestCloseEndsWaitingAndKeepsWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue()
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
		fill(t, q, pkt)
		start := time.Now()
		var sender sync.WaitGroup
		sender.Go(func() {
			if q.put(pkt) {
				t.Error("put into a full queue")
			}
		})
		synctest.Wait()
		q.close()
		sender.Wait()
		if time.Since(start) != 0 {
			t.Errorf("close woke the sender after %v", time.Since(start))
		}
		into := make([]*stack.PacketBuffer, queueSlots)
		if n, err := q.take(into, math.MaxInt); n != queueSlots || err != nil {
			t.Errorf("took %d, %v", n, err)
		}
		if _, err := q.take(into, math.MaxInt); err != net.ErrClosed {
			t.Errorf("at the end %v", err)
		}
	})
}

func TestDeadlineMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		passed := func() bool {
			synctest.Wait()
			select {
			case <-d.passed():
				return true
			default:
				return false
			}
		}
		for _, step := range []struct {
			set  time.Duration // from now; 0: never
			wait time.Duration
			want bool
		}{
			{time.Second, 0, false}, {time.Second, time.Second, true}, {0, time.Hour, false},
			{-time.Second, 0, true}, {time.Second, 0, false}, {2 * time.Second, time.Second, false},
			{-time.Second, 0, true}, {-time.Second, 0, true}, {0, 0, false},
		} {
			var at time.Time
			if step.set != 0 {
				at = time.Now().Add(step.set)
			}
			d.set(at)
			time.Sleep(step.wait)
			if got := passed(); got != step.want {
				t.Errorf("set to %v, after %v: passed %v", step.set, step.wait, got)
			}
		}
	})
}

// Nobody reads the device. What finds no room is counted, and only the first waits for it.
func TestFullQueueIsCounted(t *testing.T) {
	const more = 100
	s := newStack(t, nil)
	c := dial(t, s, "udp", addrB+":53")
	for range queueSlots + more {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Stats().QueueFull; got != more {
		t.Errorf("%d packets counted, want %d", got, more)
	}
}
