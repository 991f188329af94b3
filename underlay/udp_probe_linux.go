package underlay

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A prober sends datagrams that must not be fragmented.
//
// Whether they may is an option of the socket, not of a datagram. It is changed for one system call; data that another
// goroutine sends in that moment must not be fragmented either, and is lost if it is too long. That is
// a matter of microseconds, and a second socket cannot have the same port without taking its datagrams.
type prober struct {
	raw      syscall.RawConn
	sockaddr sockaddrs

	mu sync.Mutex // one at a time changes the option
}

func (p *prober) open(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	p.raw = raw
	return raw.Control(func(fd uintptr) { p.sockaddr.v6 = isV6(int(fd)) })
}

func (p *prober) send(m *Message) error {
	var to unix.RawSockaddrInet6
	n, err := p.sockaddr.put(&to, m.Addr)
	if err != nil {
		return fmt.Errorf("to %s: %w", m.Addr, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var errno syscall.Errno
	err = p.raw.Control(func(fd uintptr) {
		if err := setFragments(int(fd), p.sockaddr.v6, unix.IP_PMTUDISC_PROBE, unix.IPV6_PMTUDISC_PROBE); err != nil {
			errno = err.(syscall.Errno)
			return
		}
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&m.Buf[0])), uintptr(len(m.Buf)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&to)), uintptr(n))
		allowFragments(int(fd), p.sockaddr.v6)
	})
	switch {
	case err != nil:
		return err
	case errno == unix.EMSGSIZE:
		return fmt.Errorf("%d bytes to %s: %w", len(m.Buf), m.Addr, ErrTooLong)
	case errno == unix.EAGAIN:
		return nil // no room in the buffer: lost on the way, as far as anybody can tell
	case errno != 0:
		return fmt.Errorf("to %s: %w", m.Addr, errno)
	}
	return nil
}
