//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// captureLimit bounds what a capture holds, in bytes of frames.
const captureLimit = 256 << 20

// Frame is what a capture saw: an Ethernet frame, or on an interface without Ethernet, such as a TUN
// device, an IP packet. It may be longer than the MTU: the segments of an offloaded TCP send are seen
// as one.
type Frame struct {
	Interface string
	Outgoing  bool // sent by the host, not received
	Data      []byte
}

// Capture collects the frames that an interface of a host sends and receives.
type Capture struct {
	h    *Host
	file *os.File
	done chan struct{} // closed when the reader has ended

	buf   []byte         // the reader's
	names map[int]string // the reader's

	mu     sync.Mutex // guards what follows
	frames []Frame
	size   int
	lost   int
	err    error
}

// Capture begins to collect the frames of an interface ("eth0", "lo", "adit0"), or of all with "any", on
// which loopback traffic appears both as sent and as received. It sees everything from its
// return until [Capture.Stop].
func (h *Host) Capture(ifname string) *Capture {
	h.n.t.Helper()
	c := &Capture{h: h, done: make(chan struct{}), buf: make([]byte, 1<<20), names: make(map[int]string)}
	h.n.wrap(c.open(ifname), "host %s: capture on %s", h.name, ifname)
	go c.read()
	h.n.onClose(c.end)
	return c
}

func (c *Capture) open(ifname string) error {
	index := 0 // every interface
	if ifname != "any" {
		link, err := c.h.ns.LinkByName(ifname)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
	}
	var fd int
	var err error
	// Protocol 0 receives nothing: not a frame of another interface may slip in before the bind.
	const flags = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if e := c.h.ns.do(func() { fd, err = unix.Socket(unix.AF_PACKET, flags, 0) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("AF_PACKET socket: %w", err)
	}
	c.file = os.NewFile(uintptr(fd), "capture")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		c.file.Close()
		return fmt.Errorf("enlarging the receive buffer: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		c.file.Close()
		return fmt.Errorf("binding: %w", err)
	}
	return nil
}

// read receives until the deadline that end sets, then takes what was already queued.
func (c *Capture) read() {
	defer close(c.done)
	conn, err := c.file.SyscallConn()
	for err == nil {
		var failure error
		err = conn.Read(func(fd uintptr) bool {
			var empty bool
			empty, failure = c.receive(int(fd))
			return !empty // empty: wait; otherwise look at the deadline and come again
		})
		if err == nil {
			err = failure
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.fail(err)
		return
	}
	if e := conn.Control(func(fd uintptr) { err = c.drain(int(fd)) }); e != nil {
		err = e
	}
	if err != nil {
		c.fail(err)
	}
}

// receive takes a limited number of frames, or all there are, and says whether they are all.
func (c *Capture) receive(fd int) (empty bool, err error) {
	for range 1024 {
		n, from, err := unix.Recvfrom(fd, c.buf, unix.MSG_TRUNC)
		switch err {
		case nil:
			c.add(n, from)
		case unix.EAGAIN:
			return true, nil
		case unix.EINTR, unix.ENETDOWN: // an interface went down; it, or others, may come again
		default:
			return false, fmt.Errorf("receiving: %w", err)
		}
	}
	return false, nil
}

// drain takes what is queued and counts what was dropped, first shutting the door so that there is an end.
func (c *Capture) drain(fd int) error {
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	for {
		empty, err := c.receive(fd)
		if err != nil {
			return err
		}
		if empty {
			break
		}
	}
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("reading statistics: %w", err)
	}
	c.mu.Lock()
	c.lost += int(stats.Drops)
	c.mu.Unlock()
	return nil
}

// add keeps a frame of n bytes, of which c.buf holds what fits.
func (c *Capture) add(n int, from unix.Sockaddr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > len(c.buf) || c.size+n > captureLimit {
		c.lost++
		return
	}
	f := Frame{Data: slices.Clone(c.buf[:n])}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Interface = c.interfaceName(ll.Ifindex)
		f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
	}
	c.frames = append(c.frames, f)
	c.size += n
}

func (c *Capture) interfaceName(index int) string {
	if name, ok := c.names[index]; ok {
		return name
	}
	// Not by the host's netlink connection: that is the test goroutine's.
	var name string
	c.h.ns.do(func() {
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
	})
	c.names[index] = name
	return name
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// end stops the reader and waits for it. It may be called again.
func (c *Capture) end() {
	c.file.SetReadDeadline(time.Unix(1, 0)) // an error means: closed already
	<-c.done
	c.file.Close()
}

// Stop ends the capture and returns what it saw, in order. It may be called again. It fails the test if the
// capture broke, or if frames were lost for want of memory: what is not among the frames
// must not have been there.
func (c *Capture) Stop() []Frame {
	c.h.n.t.Helper()
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.h.n.t.Errorf("lab: host %s: capture: %v", c.h.name, c.err)
	}
	if c.lost > 0 {
		c.h.n.t.Errorf("lab: host %s: the capture lost %d frames", c.h.name, c.lost)
	}
	return c.frames
}

// Contains stops the capture and reports whether one frame contains b.
func (c *Capture) Contains(b []byte) bool {
	c.h.n.t.Helper()
	for _, f := range c.Stop() {
		if bytes.Contains(f.Data, b) {
			return true
		}
	}
	return false
}
