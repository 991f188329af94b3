package underlay

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// batched moves batches of messages by recvmmsg and sendmmsg, each message whole with UDP_GRO and
// UDP_SEGMENT. The calls never block a thread: the runtime's poller does the waiting.
type batched struct {
	raw      syscall.RawConn
	log      *slog.Logger
	count    *counters
	sockaddr sockaddrs
	gro      bool
	gso      segmentation
	receiver receiver

	sendmmsg func(fd uintptr, v []mmsghdr) (int, syscall.Errno) // nil: the system call

	// idle holds the senders that no call of send is using. There are never more than there were
	// calls at one time.
	mu   sync.Mutex
	idle []*sender
}

// mmsghdr is struct mmsghdr of recvmmsg(2). The compiler pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes received or sent
}

func openUDPBody(conn *net.UDPConn, cfg Config, count *counters) (udpBody, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var found features
	if err := raw.Control(func(fd uintptr) { found = prepare(int(fd), cfg) }); err != nil {
		return nil, err
	}
	if cfg.Portable || !found.batches {
		return openPortable(conn, cfg, count), nil
	}
	b := &batched{
		raw:      raw,
		log:      cfg.Logger.With("local", conn.LocalAddr()),
		count:    count,
		sockaddr: sockaddrs{v6: found.v6},
		gro:      found.gro,
	}
	b.gso.on.Store(found.gso)
	b.receiver.open(b)
	return b, nil
}

func (b *batched) receive(ms []Message) (int, error) { return b.receiver.receive(ms) }

func (b *batched) another() source {
	r := new(receiver)
	r.open(b)
	return r
}

func (b *batched) offloads() (gso, gro bool) { return b.gso.on.Load(), b.gro }

// features is what the system was found to offer for one socket.
type features struct {
	batches, gso, gro bool
	v6                bool // see isV6
}

// prepare sets up the socket, and finds out what it can do by trying. Whatever the system refuses
// is done without.
func prepare(fd int, cfg Config) features {
	f := features{v6: isV6(fd)}

	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer)
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer)
	allowFragments(fd, f.v6)
	if cfg.Portable {
		return f // it would cut what UDP_GRO hands over
	}

	// With no messages the calls do nothing, but a system without them, or a filter of system
	// calls, says no.
	_, _, receive := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	_, _, send := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	f.batches = !callMissing(receive) && !callMissing(send)
	if !f.batches {
		return f
	}
	if !cfg.DisableGSO {
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		f.gso = err == nil
	}
	if !cfg.DisableGRO {
		f.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	}
	return f
}

func callMissing(e syscall.Errno) bool { return e == unix.ENOSYS || e == unix.EPERM }

// setBuffer goes above the system's limit where the process may, and up to it where not.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// allowFragments takes the don't-fragment bit off, see UDP.
func allowFragments(fd int, v6 bool) {
	_ = setFragments(fd, v6, unix.IP_PMTUDISC_DONT, unix.IPV6_PMTUDISC_DONT)
}

// setFragments says how the socket treats datagrams that are too long for the path. An AF_INET6 socket has it for IPv4 too.
func setFragments(fd int, v6 bool, how4, how6 int) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how4)
	if v6 {
		if err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how6); err == nil {
			err = err6
		}
	}
	return err
}

// isV6 reports whether fd is an AF_INET6 socket, to which IPv4 addresses are written mapped.
func isV6(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_INET6
}

// segmentation knows whether messages may go out whole with UDP_SEGMENT. Any goroutine may ask.
type segmentation struct {
	on     atomic.Bool
	proven atomic.Bool // the system took a message whole at least once
	told   atomic.Bool // a refusal was logged
}

// concerns reports whether errno, for a message sent whole, may be a matter of segmentation, so that
// sending it datagram by datagram is worth a try.
func (s *segmentation) concerns(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE
}

// refused takes notice that the system did not take m whole, but did datagram by datagram.
//
// EIO comes from a network card or driver that cannot do it: all further messages would fare
// alike. EINVAL and EMSGSIZE come from kernels that fail at it too, but also when a segment does not fit
// the path, and a path may shrink by a forged ICMP message. So after a first success they say
// nothing about other destinations.
func (s *segmentation) refused(errno syscall.Errno, m *Message, log *slog.Logger) {
	if errno != unix.EIO && s.proven.Load() {
		if !s.told.Swap(true) {
			log.Info("a message was not taken whole; sent datagram by datagram",
				"error", errno, "to", m.Addr, "segment", m.Seg)
		}
		return
	}
	if s.on.Swap(false) {
		log.Warn("UDP_SEGMENT does not work here, switched off; sending will cost more",
			"error", errno, "to", m.Addr, "segment", m.Seg)
	}
}
