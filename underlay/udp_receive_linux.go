package underlay

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// With UDP_GRO a buffer holds dozens of datagrams, and a few of them keep the cache warm.
	// Without it, only the first page of a buffer is ever touched.
	receiveBatchGRO   = 8
	receiveBatchPlain = 64
)

// receiver fills messages from the socket. Only the goroutine in receive touches it.
type receiver struct {
	b        *batched
	hdrs     []mmsghdr
	iovs     []unix.Iovec
	controls []groControl
	names    []unix.RawSockaddrInet6
	bufs     [][]byte

	// got headers were filled by the last read; those before next were handed out, but rest, what
	// is left of the one before next. It was too long for one Message.
	got, next int
	rest      Message

	poll  func(fd uintptr) bool // read, as RawConn wants it; made once, so that no call allocates
	errno syscall.Errno
}

// groControl holds the one control message asked for: UDP_GRO with an int, the segment size.
type groControl struct {
	hdr unix.Cmsghdr
	seg int32
	_   [4]byte
}

func (r *receiver) open(b *batched) {
	n := receiveBatchPlain
	if b.gro {
		n = receiveBatchGRO
	}
	r.b = b
	r.hdrs = make([]mmsghdr, n)
	r.iovs = make([]unix.Iovec, n)
	r.controls = make([]groControl, n)
	r.names = make([]unix.RawSockaddrInet6, n)
	r.bufs = make([][]byte, n)
	for i := range r.bufs {
		r.setBuffer(i, make([]byte, maxDatagram))
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
	}
	r.poll = r.read
}

func (r *receiver) setBuffer(i int, buf []byte) {
	r.bufs[i] = buf
	r.iovs[i].Base = &buf[0]
	r.iovs[i].SetLen(len(buf))
}

func (r *receiver) receive(ms []Message) (int, error) {
	for {
		n := r.take(ms)
		if n > 0 {
			return n, nil
		}
		if err := r.wait(); err != nil {
			return 0, err
		}
	}
}

// wait reads the next batch from the socket.
func (r *receiver) wait() error {
	for {
		if err := r.b.raw.Read(r.poll); err != nil {
			return err
		}
		if r.errno == 0 {
			return nil
		}
		if !isPassing(r.errno) {
			return os.NewSyscallError("recvmmsg", r.errno)
		}
		r.b.count.receiveErrors.Add(1)
	}
}

// read reports whether the socket had anything to say, be it an error.
func (r *receiver) read(fd uintptr) bool {
	for i := range r.hdrs {
		h := &r.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(int(unsafe.Sizeof(groControl{})))
	}
	r.got, r.next = 0, 0
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])),
		uintptr(len(r.hdrs)), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN {
		return false
	}
	r.errno = errno
	if errno == 0 {
		r.got = int(n)
	}
	return true
}

// take hands out what was read, as far as ms has room.
func (r *receiver) take(ms []Message) int {
	n := 0
	for n < len(ms) {
		if len(r.rest.Buf) == 0 && !r.load() {
			break
		}
		ms[n] = r.cut()
		n++
	}
	return n
}

// load makes the next message that was read the rest, dropping what is no message.
func (r *receiver) load() bool {
	for ; r.next < r.got; r.next++ {
		h := &r.hdrs[r.next]
		n := int(h.len)
		seg := r.segment(r.next)
		switch {
		case h.hdr.Flags&unix.MSG_TRUNC != 0:
			r.b.count.truncated.Add(1)
		case n == 0:
			r.b.count.empty.Add(1)
		case min(n, seg) > MaxMessage:
			r.b.count.oversize.Add(1)
		default:
			r.rest = Message{
				Buf:  r.bufs[r.next][:n],
				Seg:  min(n, seg),
				Addr: r.b.sockaddr.get(&r.names[r.next]),
			}
			r.next++
			return true
		}
	}
	return false
}

// segment returns the size of the datagrams of message i, which is all of it unless the system
// says otherwise.
func (r *receiver) segment(i int) int {
	c := &r.controls[i]
	const whole = maxDatagram
	if int(r.hdrs[i].hdr.Controllen) < unix.CmsgLen(int(unsafe.Sizeof(c.seg))) {
		return whole
	}
	if c.hdr.Level != unix.IPPROTO_UDP || c.hdr.Type != unix.UDP_GRO || c.seg <= 0 {
		return whole
	}
	return int(c.seg)
}

// cut takes one message off the rest. The system joins datagrams up to 64 KB, and newer ones may join
// more of them than a Message holds.
func (r *receiver) cut() Message {
	m := r.rest
	r.rest = Message{}
	if len(m.Buf) > MaxMessage || m.datagrams() > MaxSegments {
		most := min(MaxMessage/m.Seg, MaxSegments) * m.Seg
		r.rest = m
		r.rest.Buf = m.Buf[most:]
		r.rest.Seg = min(m.Seg, len(r.rest.Buf))
		m.Buf = m.Buf[:most]
	}
	m.Buf = m.Buf[:len(m.Buf):len(m.Buf)]
	return m
}
