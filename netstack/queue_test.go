package netstack

import (
	"math"
	"net"
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
