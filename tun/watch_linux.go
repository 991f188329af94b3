package tun

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A watch tells when anything changes that routes depend on: interfaces, addresses, and routes. What it was is not
// told, and is looked up: the kernel is silent about IPv4 routes that go with an interface.
type watch struct {
	file *os.File
	conn syscall.RawConn // of file
	buf  []byte
	quit chan struct{} // closed by close
	done chan struct{} // closed when run has returned
}

// settle is how long changes are gathered after the first: they come in dozens.
const settle = 50 * time.Millisecond

// newWatch watches the network namespace of the calling thread, from its return on.
func newWatch() (*watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 16<<10), quit: make(chan struct{}), done: make(chan struct{})}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err == nil {
		w.conn, err = w.file.SyscallConn()
	}
	if err != nil {
		w.file.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return w, nil
}

// run calls changed after changes, and returns after close.
func (w *watch) run(changed func()) {
	defer close(w.done)
	for w.conn.Read(w.drain) == nil {
		changed()
		select {
		case <-time.After(settle):
		case <-w.quit:
			return
		}
	}
}

// drain takes what is there, and reports whether there was anything. That there was too much is news as well.
func (w *watch) drain(fd uintptr) (news bool) {
	for {
		_, _, err := unix.Recvfrom(int(fd), w.buf, 0)
		switch err {
		case nil, unix.ENOBUFS:
			news = true
		case unix.EINTR:
		default:
			return news || err != unix.EAGAIN
		}
	}
}

// close ends run, which was started, and waits for it.
func (w *watch) close() {
	close(w.quit)
	w.file.Close()
	<-w.done
}
