package tun

import (
	"errors"
	"fmt"
	"net"
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
	read      reader
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
	d.read.init()
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

// Malformed returns how many packets were dropped because the kernel's word on them did not fit
// them.
func (d *Device) Malformed() uint64 { return d.malformed.Load() }

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

// Read waits for packets from the kernel and fills b with up to 8, or more if the kernel gave a
// super-packet that no Offload can describe. They are borrowed until the next Read. One goroutine at a time may
// call it. It returns net.ErrClosed after Close; any other error is final as well, and
// says that the interface is gone.
func (d *Device) Read(b *packet.Batch) error {
	b.Reset()
	for len(b.Packets) == 0 {
		if err := d.conn.Read(d.read.fill); err != nil {
			return d.ended(err)
		}
		for i, n := range d.read.lengths[:d.read.count] {
			if err := add(b, d.read.bufs[i][:n]); err != nil {
				d.malformed.Add(1)
			}
		}
		if d.read.err != nil && len(b.Packets) == 0 {
			return fmt.Errorf("tun: read %s: %w", d.name, d.read.err)
		}
	}
	return nil
}

// A reader reads frames from the kernel, several each time the file is ready. Only the reading goroutine touches it.
type reader struct {
	bufs    [readBatch][]byte
	lengths [readBatch]int // of the frames in bufs
	count   int            // how many
	err     error          // what ended the last fill, if not that there was nothing more
	fill    func(fd uintptr) bool
}

func (r *reader) init() {
	memory := make([]byte, readBatch*frameSize)
	for i := range r.bufs {
		r.bufs[i] = memory[i*frameSize : (i+1)*frameSize : (i+1)*frameSize]
	}
	r.fill = r.readAll // bound once, not on each read
}

// readAll reads until there is nothing more or all buffers are full. It returns false, to be called again when the
// file is ready, if there was nothing at all.
func (r *reader) readAll(fd uintptr) bool {
	r.count, r.err = 0, nil
	for r.count < len(r.bufs) {
		buf := r.bufs[r.count]
		// Raw: the call does not block, and telling the scheduler of it costs more than it does.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		switch errno {
		case 0:
			r.lengths[r.count] = int(n)
			r.count++
		case unix.EINTR:
		case unix.EAGAIN:
			return r.count > 0
		default:
			r.err = errno
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
