//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A raw sends UDP datagrams from any source, many by one system call: the IP headers are its own. Theirs are IPv4 and no UDP checksums,
// which IPv4 leaves to the sender.
type raw struct {
	fd      int
	n       int // datagrams waiting
	packets [][]byte
	iovs    []unix.Iovec
	hdrs    []mmsghdr
	to      unix.RawSockaddrInet4
	sent    int
}

// mmsghdr is struct mmsghdr of <sys/socket.h>.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

const (
	batch     = 64
	ipLen     = 20
	headerLen = ipLen + 8
	maxPacket = 1500
)

func newRaw() (*raw, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("a raw socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20) // less is slower, and no more
	r := &raw{fd: fd, packets: make([][]byte, batch), iovs: make([]unix.Iovec, batch), hdrs: make([]mmsghdr, batch)}
	r.to.Family = unix.AF_INET
	for i := range r.packets {
		p := make([]byte, maxPacket)
		p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
		r.packets[i] = p
		r.iovs[i].Base = &p[0]
		h := &r.hdrs[i].hdr
		h.Iov, h.Iovlen = &r.iovs[i], 1
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.to)), uint32(unsafe.Sizeof(r.to))
	}
	return r, nil
}

// send queues a datagram, and sends what is queued when that is a batch.
func (r *raw) send(from, to netip.AddrPort, payload []byte) error {
	if dst := to.Addr().As4(); dst != r.to.Addr {
		if err := r.flush(); err != nil {
			return err
		}
		r.to.Addr = dst
	}
	p := r.packets[r.n]
	src := from.Addr().As4()
	copy(p[12:16], src[:])
	copy(p[16:20], r.to.Addr[:])
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	n := headerLen + copy(p[headerLen:], payload)
	r.iovs[r.n].SetLen(n)
	if r.n++; r.n == batch {
		return r.flush()
	}
	return nil
}

// flush sends what is queued. What a full queue of the interface refuses is lost, as on any line.
func (r *raw) flush() error {
	for at := 0; at < r.n; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.hdrs[at])), uintptr(r.n-at), 0, 0, 0)
		switch errno {
		case 0:
			at += int(n)
			r.sent += int(n)
		case unix.EINTR:
		case unix.ENOBUFS, unix.EAGAIN:
			at++
		default:
			return fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	r.n = 0
	return nil
}
