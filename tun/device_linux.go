package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/adit-overlay/adit/packet"
	"golang.org/x/sys/unix"
)

// A Device is a TUN device of the kernel.
type Device struct {
	name      string
	mtu       int
	file      *os.File
	conn      syscall.RawConn // of file
	outlet    *outlet
	link      *link
	malformed atomic.Uint64
	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error // what the first Close returned
}

// Open makes the device c describes, gives it its addresses and routes and sets it up. If a step
// fails, those before it are undone. The network namespace is that of the calling thread.
//
// It needs CAP_NET_ADMIN; see [ErrUnavailable].
func Open(c Config) (*Device, error) {
	c, err := c.parse()
	if err != nil {
		return nil, err
	}
	fd, name, err := createInterface(c.Name)
	if err != nil {
		return nil, fmt.Errorf("tun: %w", err)
	}
	c.Name = name
	// Only now: an fd without an interface cannot be polled.
	d := &Device{name: name, mtu: c.MTU, file: os.NewFile(uintptr(fd), "tun "+name)}
	d.outlet = newOutlet(d)
	if d.conn, err = d.file.SyscallConn(); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("tun: %s: %w", name, err)
	}
	if d.link, err = configureLink(c); err != nil {
		d.file.Close() // the interface goes, with all that is tied to it
		return nil, fmt.Errorf("tun: %s: %w", name, err)
	}
	return d, nil
}

// Name returns the name of the interface.
func (d *Device) Name() string { return d.name }

// MTU returns the MTU of the interface as configured.
func (d *Device) MTU() int { return d.mtu }

// Bypass has one more underlay address reached beside the device, as those of Config.Bypass are. The error is net.ErrClosed
// after Close.
func (d *Device) Bypass(a netip.Addr) error { return d.link.bypass.learn(a) }

// Malformed returns how many packets were dropped because the kernel's word on them did not fit
// them.
func (d *Device) Malformed() uint64 { return d.malformed.Load() }

// Stats returns the counts as they are now.
func (d *Device) Stats() Stats { return Stats{Malformed: d.Malformed()} }

// Close takes the interface down, with its addresses and routes, and the bypass routes. It waits
// for calls of Read and Deliver to return, which they do at once.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		d.closed.Store(true)
		// The routes into the device go first. While only the bypass routes stand nothing is cut off.
		if err := errors.Join(d.file.Close(), d.link.close()); err != nil {
			d.closeErr = fmt.Errorf("tun: close %s: %w", d.name, err)
		}
	})
	return d.closeErr
}

// ended turns the error of a RawConn method, which says that the file is being closed, into what
// callers expect.
func (d *Device) ended(err error) error {
	if d.closed.Load() {
		return net.ErrClosed
	}
	return fmt.Errorf("tun: %s: %w", d.name, err)
}

// One Read takes at most readFrames frames from the kernel, and stops after readBytes: enough small packets to share a
// message, few enough super-packets to stay in the cache.
const (
	readFrames = 32
	readBytes  = 256 << 10
)

// Read waits for packets from the kernel and fills b with up to readFrames, or more if the kernel gave a
// super-packet that no Offload can describe. They are borrowed until the next Read. One goroutine at a time may
// call it. It returns net.ErrClosed after Close; any other error is final as well, and
// says that the interface is gone.
func (d *Device) Read(b *packet.Batch) error { return d.outlet.Read(b) }

// Outlet returns one more outlet of the device, with buffers of its own.
func (d *Device) Outlet() packet.Outlet { return newOutlet(d) }

// An outlet reads frames from the kernel, several each time the file is ready. Only the reading goroutine touches it.
type outlet struct {
	d       *Device
	bufs    [readFrames][]byte
	lengths [readFrames]int // of the frames in bufs
	count   int             // how many
	err     error           // what ended the last fill, if not that there was nothing more
	fill    func(fd uintptr) bool
}

func newOutlet(d *Device) *outlet {
	o := &outlet{d: d}
	memory := make([]byte, readFrames*frameSize)
	for i := range o.bufs {
		o.bufs[i] = memory[i*frameSize : (i+1)*frameSize : (i+1)*frameSize]
	}
	o.fill = o.readAll // bound once, not on each read
	return o
}

// Read implements packet.Outlet.
func (o *outlet) Read(b *packet.Batch) error {
	b.Reset()
	for len(b.Packets) == 0 {
		if err := o.d.conn.Read(o.fill); err != nil {
			return o.d.ended(err)
		}
		for i, n := range o.lengths[:o.count] {
			if err := add(b, o.bufs[i][:n]); err != nil {
				o.d.malformed.Add(1)
			}
		}
		if o.err != nil && len(b.Packets) == 0 {
			return fmt.Errorf("tun: read %s: %w", o.d.name, o.err)
		}
	}
	return nil
}

// readAll reads until there is nothing more or it is enough. It returns false, to be called again when the
// file is ready, if there was nothing at all.
func (o *outlet) readAll(fd uintptr) bool {
	o.count, o.err = 0, nil
	for size := 0; o.count < len(o.bufs) && size < readBytes; {
		buf := o.bufs[o.count]
		// Raw: the call does not block, and telling the scheduler of it costs more than it does.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		switch errno {
		case 0:
			o.lengths[o.count] = int(n)
			o.count++
			size += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return o.count > 0
		default:
			o.err = errno
			return true
		}
	}
	return true
}

// An inlet writes frames to the kernel. It belongs to one goroutine.
type inlet struct {
	d      *Device
	buf    []byte // frameSize, the packet behind room for its header
	room   int    // what Lend has lent
	frame  []byte
	errno  syscall.Errno
	once   func(fd uintptr)
	repeat func(fd uintptr) bool
}

// Inlet returns a way in for one goroutine, with a buffer of its own. Inlets write at the same time.
func (d *Device) Inlet() packet.Inlet {
	in := &inlet{d: d, buf: make([]byte, frameSize)}
	in.once = func(fd uintptr) { in.write(fd) }
	in.repeat = in.write
	return in
}

// Lend returns the inlet's buffer.
func (in *inlet) Lend(n int) []byte {
	in.room = n
	return in.buf[virtioLen : virtioLen+n : virtioLen+n]
}

// Deliver gives the packet to the kernel. Errors but net.ErrClosed concern the packet alone: EINVAL
// for what the kernel does not take for a packet, EIO while the interface is set down.
func (in *inlet) Deliver(n int, o packet.Offload) error {
	if n < 1 || n > in.room {
		return ErrOffload
	}
	in.frame = in.buf[:virtioLen+n]
	h, err := encode(in.frame[virtioLen:], o)
	if err != nil {
		return err
	}
	h.put(in.frame)

	// RawConn.Write lets one goroutine in at a time, Control any number; waiting needs the former.
	if err := in.d.conn.Control(in.once); err != nil {
		return in.d.ended(err)
	}
	if in.errno == unix.EAGAIN {
		if err := in.d.conn.Write(in.repeat); err != nil {
			return in.d.ended(err)
		}
	}
	if in.errno != 0 {
		return os.NewSyscallError("tun: write", in.errno)
	}
	return nil
}

// write writes the frame, and reports whether the kernel did not ask to wait.
func (in *inlet) write(fd uintptr) bool {
	for {
		_, _, in.errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&in.frame[0])), uintptr(len(in.frame)))
		if in.errno != unix.EINTR {
			return in.errno != unix.EAGAIN
		}
	}
}
