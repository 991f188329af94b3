//go:build linux

package lab

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wireLimit bounds what one direction of a wire holds, in bytes of frames. It is reached
// when delay times rate exceeds it; what comes then is dropped and counted as Overflowed.
const wireLimit = 64 << 20

// Wire joins two switches by a line that can be slow, far and lossy. It moves frames between a TAP device in
// each switch by a thread for each direction, and so costs processor time: some microseconds a
// frame. Frames come segmented to the MTU of 1500, which a wire does not exceed. All may be
// changed while traffic flows; frames already on their way are not affected.
type Wire struct {
	n                 *Network
	forward, backward *direction
}

// Wire joins a and b; imp holds in both directions. The kernel must have TAP devices, else
// the test ends as [New] describes.
func (n *Network) Wire(a, b *Switch, imp Impairment) *Wire {
	n.t.Helper()
	n.wrap(imp.validate(), "wire from %s to %s", a.name, b.name)
	tapA := n.tap(a)
	n.onClose(func() { unix.Close(tapA) })
	tapB := n.tap(b)
	n.onClose(func() { unix.Close(tapB) })
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	n.wrap(err, "wire from %s to %s", a.name, b.name)
	w := &Wire{
		n:        n,
		forward:  newDirection(a.name+" to "+b.name, tapA, tapB, imp),
		backward: newDirection(b.name+" to "+a.name, tapB, tapA, imp),
	}
	var pumps sync.WaitGroup
	pumps.Add(2)
	for _, d := range []*direction{w.forward, w.backward} {
		onSpareThread(func() {
			defer pumps.Done()
			d.pump(stop)
		})
	}
	n.onClose(func() {
		unix.Write(stop, []byte{0, 0, 0, 0, 0, 0, 0, 1}) // level-triggered: both see it
		pumps.Wait()
		unix.Close(stop)
	})
	return w
}

// Set changes both directions.
func (w *Wire) Set(imp Impairment) {
	w.n.t.Helper()
	w.SetForward(imp)
	w.SetBackward(imp)
}

// SetForward changes the direction from the first switch to the second.
func (w *Wire) SetForward(imp Impairment) {
	w.n.t.Helper()
	w.n.must(imp.validate())
	w.forward.imp.Store(&imp)
}

// SetBackward changes the direction from the second switch to the first.
func (w *Wire) SetBackward(imp Impairment) {
	w.n.t.Helper()
	w.n.must(imp.validate())
	w.backward.imp.Store(&imp)
}

// Counts is what became of the frames of one direction.
type Counts struct {
	Passed     uint64
	Lost       uint64 // by Loss
	Overflowed uint64 // dropped at a full queue
	Failed     uint64 // not taken by the far end, because it is down or its queue is full
}

// Counts returns what happened so far from the first switch to the second, and back.
func (w *Wire) Counts() (forward, backward Counts) {
	return w.forward.counts(), w.backward.counts()
}

// tap makes a TAP device that is a port of the switch.
func (n *Network) tap(s *Switch) (fd int) {
	n.t.Helper()
	var err error
	// The device will be in the namespace in which the descriptor is opened.
	n.must(n.fabric.do(func() {
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}))
	if err != nil {
		unavailable(n.t, fmt.Sprintf("a wire needs /dev/net/tun: %v", err))
	}
	if err := n.plug(fd, s); err != nil {
		unix.Close(fd)
		n.t.Fatalf("lab: wire: TAP device on %s: %v", s.name, err)
	}
	return fd
}

func (n *Network) plug(fd int, s *Switch) error {
	name := n.port()
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	link, err := n.fabric.LinkByName(name)
	if err != nil {
		return err
	}
	if err := n.fabric.LinkSetMaster(link, s.bridge); err != nil {
		return err
	}
	// A burst waits here until the pump has taken it; the losses are to be those of Impairment.
	if err := n.fabric.LinkSetTxQLen(link, 10000); err != nil {
		return err
	}
	// It has a carrier from the beginning, and so works at once.
	return n.fabric.LinkSetUp(link)
}

// direction carries frames one way.
type direction struct {
	in, out int // TAP descriptors, non-blocking
	imp     atomic.Pointer[Impairment]

	passed, lost, overflowed, failed atomic.Uint64

	// What follows is the pump's own.
	shaper  shaper
	start   time.Time
	waiting frameHeap
	size    int      // bytes waiting
	serial  uint64   // of the next frame
	spare   [][]byte // buffers of frames that have left
}

func newDirection(name string, in, out int, imp Impairment) *direction {
	// A run can be repeated as far as the order of arrivals repeats.
	seed := fnv.New64a()
	seed.Write([]byte(name))
	d := &direction{in: in, out: out, start: time.Now()}
	d.shaper.rand = rand.New(rand.NewPCG(seed.Sum64(), 0))
	d.imp.Store(&imp)
	return d
}

func (d *direction) counts() Counts {
	return Counts{
		Passed:     d.passed.Load(),
		Lost:       d.lost.Load(),
		Overflowed: d.overflowed.Load(),
		Failed:     d.failed.Load(),
	}
}

func (d *direction) now() time.Duration { return time.Since(d.start) }

// pump moves frames until stop becomes readable. It has a thread to itself, whose sleep in
// the kernel ends more punctually than a Go timer: those are a millisecond coarse.
func (d *direction) pump(stop int) {
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // if refused: 50 µs coarse
	fds := []unix.PollFd{
		{Fd: int32(d.in), Events: unix.POLLIN},
		{Fd: int32(stop), Events: unix.POLLIN},
	}
	for {
		var sleep *unix.Timespec // nil: until a frame comes
		if len(d.waiting) > 0 {
			t := unix.NsecToTimespec(int64(max(0, d.waiting[0].due-d.now())))
			sleep = &t
		}
		_, err := unix.Ppoll(fds, sleep, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		d.send()
		d.receive()
		d.send()
	}
}

// receive takes some of the frames that have come.
func (d *direction) receive() {
	for range 64 {
		b := d.buffer()
		n, err := unix.Read(d.in, b)
		if err != nil {
			d.spare = append(d.spare, b)
			return
		}
		due, v := d.shaper.admit(d.now(), n, *d.imp.Load())
		switch {
		case v == lost:
			d.lost.Add(1)
		case v == overflow || d.size+n > wireLimit:
			d.overflowed.Add(1)
		default:
			heap.Push(&d.waiting, frame{due: due, serial: d.serial, data: b[:n]})
			d.serial++
			d.size += n
			continue
		}
		d.spare = append(d.spare, b)
	}
}

// send sends what is due.
func (d *direction) send() {
	for now := d.now(); len(d.waiting) > 0 && d.waiting[0].due <= now; {
		f := heap.Pop(&d.waiting).(frame)
		if _, err := unix.Write(d.out, f.data); err != nil {
			d.failed.Add(1)
		} else {
			d.passed.Add(1)
		}
		d.size -= len(f.data)
		d.spare = append(d.spare, f.data[:cap(f.data)])
	}
}

func (d *direction) buffer() []byte {
	if last := len(d.spare) - 1; last >= 0 {
		b := d.spare[last]
		d.spare = d.spare[:last]
		return b
	}
	return make([]byte, 2048) // a frame of MTU 1500, with tags
}

type frame struct {
	due    time.Duration
	serial uint64 // frames due at once leave in the order they came
	data   []byte
}

// frameHeap is a [heap.Interface] whose first frame is the next to leave.
type frameHeap []frame

func (h frameHeap) Len() int { return len(h) }
func (h frameHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].serial < h[j].serial
}
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)   { *h = append(*h, x.(frame)) }
func (h *frameHeap) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = frame{}
	*h = (*h)[:last]
	return f
}
