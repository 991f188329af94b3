//go:build linux

package lab

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// arrival is a frame that the shaper let pass.
type arrival struct {
	number int
	due    time.Duration
}

// offer gives the shaper count frames of 1250 bytes, one each interval.
func offer(imp Impairment, count int, interval time.Duration) (passed []arrival, drops map[verdict]int) {
	s := shaper{rand: rand.New(rand.NewPCG(1, 2))}
	drops = make(map[verdict]int)
	for i := range count {
		due, v := s.admit(time.Duration(i)*interval, 1250, imp)
		if v == pass {
			passed = append(passed, arrival{i, due})
		} else {
			drops[v]++
		}
	}
	return passed, drops
}

func TestShaperDelays(t *testing.T) {
	const µs, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		name     string
		interval time.Duration
		imp      Impairment
		min, max time.Duration
	}{
		{"nothing", ms, Impairment{}, 0, 0},
		{"delay", ms, Impairment{Delay: 50 * ms}, 50 * ms, 50 * ms},
		{"jitter", 25 * ms, Impairment{Delay: 50 * ms, Jitter: 10 * ms}, 40 * ms, 60 * ms},
		{"jitter beyond delay", 25 * ms, Impairment{Delay: ms, Jitter: 5 * ms}, 0, 6 * ms},
		{"crowded jitter", ms, Impairment{Delay: 50 * ms, Jitter: 10 * ms}, 45 * ms, 60 * ms},
		{"line just fast enough", ms, Impairment{Rate: 10_000_000}, ms, ms},
		{"delay and line", ms, Impairment{Delay: ms, Rate: 100_000_000}, 1100 * µs, 1100 * µs},
	} {
		t.Run(c.name, func(t *testing.T) {
			passed, drops := offer(c.imp, 1000, c.interval)
			if len(passed) != 1000 {
				t.Errorf("%d of 1000 passed; drops: %v", len(passed), drops)
			}
			low, high, last := time.Duration(math.MaxInt64), time.Duration(0), time.Duration(0)
			for _, a := range passed {
				delay := a.due - time.Duration(a.number)*c.interval
				low, high = min(low, delay), max(high, delay)
				if a.due < last {
					t.Fatalf("frame %d overtakes", a.number)
				}
				last = a.due
			}
			if low < c.min || high > c.max {
				t.Errorf("delays from %v to %v, want within %v and %v", low, high, c.min, c.max)
			}
			if spread := c.max - c.min; high-low < spread*8/10 {
				t.Errorf("delays from %v to %v do not spread over %v to %v", low, high, c.min, c.max)
			}
		})
	}
}

func TestShaperLoses(t *testing.T) {
	for _, loss := range []float64{0, 0.01, 0.5, 1} {
		const count = 100_000
		_, drops := offer(Impairment{Loss: loss}, count, time.Millisecond)
		sigma := math.Sqrt(count * loss * (1 - loss))
		if got := float64(drops[lost]); math.Abs(got-count*loss) > 5*sigma {
			t.Errorf("loss %v: %v of %v lost", loss, got, count)
		}
	}
}

func TestShaperReorders(t *testing.T) {
	passed, _ := offer(Impairment{Delay: 10 * time.Millisecond, Reorder: 0.1}, 10_000, time.Millisecond)
	early, inOrder := 0, time.Duration(0)
	for _, a := range passed {
		if a.due == time.Duration(a.number)*time.Millisecond {
			early++
			continue
		}
		if a.due < inOrder {
			t.Fatalf("frame %d overtakes without being early", a.number)
		}
		inOrder = a.due
	}
	if early < 800 || early > 1200 {
		t.Errorf("%d of 10000 frames are early, want about 1000", early)
	}
}

func TestShaperLimitsRate(t *testing.T) {
	// Ten times what the line carries: 1250 bytes each 0.1 ms on 10 Mbit/s.
	imp := Impairment{Rate: 10_000_000, Queue: 12_500, Delay: 5 * time.Millisecond}
	passed, drops := offer(imp, 10_000, 100*time.Microsecond)
	if len(passed) < 1000 || len(passed) > 1010 || drops[overflow] != 10_000-len(passed) {
		t.Errorf("%d frames passed, want those of a second, 1000, and a queue of 10; drops: %v", len(passed), drops)
	}
	for i, a := range passed {
		if wait := a.due - time.Duration(a.number)*100*time.Microsecond; wait > 15*time.Millisecond {
			t.Fatalf("frame %d waits %v, longer than a full queue and the delay", a.number, wait)
		}
		if i > 0 && a.due-passed[i-1].due < time.Millisecond {
			t.Fatalf("frame %d follows after %v, faster than the line", a.number, a.due-passed[i-1].due)
		}
	}
	if passed, _ := offer(Impairment{Rate: 10_000_000, Queue: 1}, 100, time.Millisecond); len(passed) != 100 {
		t.Errorf("a line that is idle whenever a frame comes passed %d of 100", len(passed))
	}
}

func TestBadImpairmentIsRefused(t *testing.T) {
	for _, imp := range []Impairment{{Delay: -1}, {Jitter: -1}, {Rate: -1}, {Queue: -1}, {Loss: 1.1}, {Loss: -0.1}, {Reorder: 2}, {Loss: math.NaN()}} {
		if imp.validate() == nil {
			t.Errorf("%+v was accepted", imp)
		}
	}
}

// wired is two hosts on two switches with a wire between.
func wired(t *testing.T, imp Impairment) (w *Wire, a, b *Host) {
	n := New(t)
	left, right := n.Switch("left"), n.Switch("right")
	w = n.Wire(left, right, imp)
	return w, n.Host("a", On(left, "192.0.2.1/24", "2001:db8::1/64")), n.Host("b", On(right, "192.0.2.2/24", "2001:db8::2/64"))
}

func TestWireDelaysAndLoses(t *testing.T) {
	const delay = 30 * time.Millisecond
	w, hostA, hostB := wired(t, Impairment{Delay: delay})
	for _, c := range []struct{ a, b string }{{"192.0.2.1:1", "192.0.2.2:2"}, {"[2001:db8::1]:1", "[2001:db8::2]:2"}} {
		a, b := socket{t, hostA.ListenPacket("udp", c.a)}, socket{t, hostB.ListenPacket("udp", c.b)}
		begin := time.Now()
		a.send("ping", c.b)
		b.want("ping")
		b.send("pong", c.a)
		a.want("pong")
		if rtt := time.Since(begin); rtt < 2*delay {
			t.Errorf("there and back in %v, on a wire of %v each way", rtt, delay)
		}
	}

	a, b := socket{t, hostA.ListenPacket("udp", "192.0.2.1:3")}, socket{t, hostB.ListenPacket("udp", "192.0.2.2:4")}
	w.SetForward(Impairment{Loss: 1})
	a.send("lost", "192.0.2.2:4")
	b.wantNothing()
	b.send("the other way", "192.0.2.1:3")
	a.want("the other way")
	w.SetBackward(Impairment{Loss: 1})
	b.send("lost", "192.0.2.1:3")
	a.wantNothing()
	if forward, backward := w.Counts(); forward.Lost == 0 || backward.Lost == 0 {
		t.Errorf("counts %+v, %+v; want losses in both directions", forward, backward)
	}
	w.Set(Impairment{})
	a.send("mended", "192.0.2.2:4")
	b.want("mended")
}

func TestWireKeepsOrder(t *testing.T) {
	_, hostA, hostB := wired(t, Impairment{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond})
	a, b := socket{t, hostA.ListenPacket("udp", "192.0.2.1:3")}, socket{t, hostB.ListenPacket("udp", "192.0.2.2:4")}
	for i := range 200 {
		a.send(fmt.Sprint(i), "192.0.2.2:4")
	}
	for i := range 200 {
		b.want(fmt.Sprint(i))
	}
}

// TestDirectionInFakeTime drives one direction by hand, between two socket pairs in place of TAP devices.
func TestDirectionInFakeTime(t *testing.T) {
	pair := func() (near, far int) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
		return fds[0], fds[1]
	}
	source, in := pair()
	out, sink := pair()
	synctest.Test(t, func(t *testing.T) {
		d := newDirection("test", in, out, Impairment{})
		offer := func(text string, imp Impairment) {
			t.Helper()
			d.imp.Store(&imp)
			if _, err := unix.Write(source, []byte(text)); err != nil {
				t.Fatal(err)
			}
			d.receive()
		}
		want := func(texts ...string) {
			t.Helper()
			d.send()
			b := make([]byte, 100)
			for _, text := range texts {
				if n, err := unix.Read(sink, b); err != nil || string(b[:n]) != text {
					t.Fatalf("%q left (%v), want %q", b[:max(n, 0)], err, text)
				}
			}
			if n, err := unix.Read(sink, b); err != unix.EAGAIN {
				t.Fatalf("%q left (%v), want no more", b[:max(n, 0)], err)
			}
		}
		offer("at once", Impairment{})
		want("at once")
		offer("slow", Impairment{Delay: time.Second})
		offer("behind", Impairment{}) // a shorter delay does not change the order
		want()
		offer("fast", Impairment{Delay: time.Second, Reorder: 1})
		want("fast")
		time.Sleep(time.Second - time.Nanosecond)
		want()
		offer("lost", Impairment{Loss: 1})
		time.Sleep(time.Nanosecond)
		want("slow", "behind")
		offer("first", Impairment{Rate: 8, Queue: 10})
		offer("too much", Impairment{Rate: 8, Queue: 10})
		time.Sleep(5 * time.Second)
		want("first")
		if got, want := d.counts(), (Counts{Passed: 5, Lost: 1, Overflowed: 1}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
		if d.size != 0 {
			t.Errorf("%d bytes wait in an empty queue", d.size)
		}
	})
}

// TestWireCarriesTCP sends a few megabytes through a line of 100 Mbit/s.
func TestWireCarriesTCP(t *testing.T) {
	w, a, b := wired(t, Impairment{Rate: 100_000_000, Delay: 2 * time.Millisecond, Loss: 0.001})
	l := b.Listen("tcp", "192.0.2.2:80")
	const size = 4 << 20
	sent := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write(make([]byte, size))
			c.Close()
		}
		sent <- err
	}()
	c, err := a.Dial("tcp", "192.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c.SetDeadline(begin.Add(time.Minute))
	n, err := io.Copy(io.Discard, c)
	if err := <-sent; err != nil || n != size {
		t.Fatalf("%d of %d bytes; %v", n, size, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	if floor := serialization(size, 100_000_000) * 9 / 10; took < floor {
		t.Errorf("%d bytes in %v, faster than the line: %v", size, took, floor)
	}
	_, backward := w.Counts()
	t.Logf("%d bytes in %v, %.1f Mbit/s; %+v", size, took, size*8/took.Seconds()/1e6, backward)
}

// BenchmarkWire measures what a wire without impairment carries in frames of 1,400 bytes.
func BenchmarkWire(b *testing.B) {
	n := New(b)
	left, right := n.Switch("left"), n.Switch("right")
	w := n.Wire(left, right, Impairment{})
	from := n.Host("a", On(left, "192.0.2.1/24")).ListenPacket("udp", "192.0.2.1:1").(*net.UDPConn)
	n.Host("b", On(right, "192.0.2.2/24")).ListenPacket("udp", "192.0.2.2:2")
	to := netip.MustParseAddrPort("192.0.2.2:2")
	data := make([]byte, 1358)
	b.SetBytes(1400)
	for b.Loop() {
		if _, err := from.WriteToUDPAddrPort(data, to); err != nil {
			b.Fatal(err)
		}
	}
	forward, _ := w.Counts()
	b.ReportMetric(float64(forward.Passed)/b.Elapsed().Seconds(), "frames/s")
}
