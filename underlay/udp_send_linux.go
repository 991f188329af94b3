package underlay

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// send lends a sender to the caller, so that several goroutines send at the same time.
func (b *batched) send(ms []Message) error {
	s := b.takeSender()
	err := s.send(ms)
	b.giveSender(s)
	return err
}

func (b *batched) takeSender() *sender {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.idle); n > 0 {
		s := b.idle[n-1]
		b.idle = b.idle[:n-1]
		return s
	}
	return &sender{b: b, whole: newVector(b)}
}

func (b *batched) giveSender(s *sender) {
	s.failed, s.failures = nil, 0
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, s)
}

// sender is one call of send.
type sender struct {
	b     *batched
	whole *vector
	// single sends the datagrams of one message that was refused whole, before what follows it in
	// whole. Nil until that happens.
	single   *vector
	failed   error // the first
	failures int   // datagrams that could not be sent
}

func (s *sender) send(ms []Message) error {
	for i := range ms {
		if err := s.add(&ms[i]); err != nil {
			return err
		}
	}
	if err := s.flush(s.whole); err != nil {
		return err
	}
	return s.failed
}

// add puts m in the vector, and sends the vector when full. Its error is the end of the carrier.
func (s *sender) add(m *Message) error {
	if err := checkAddressed(m); err != nil {
		s.fail(m, 1, err)
		return nil
	}
	if m.Seg == len(m.Buf) || s.b.gso.on.Load() {
		return s.queue(s.whole, m)
	}
	return s.cut(s.whole, m)
}

// cut queues the datagrams of m one by one.
func (s *sender) cut(v *vector, m *Message) error {
	one := Message{Addr: m.Addr}
	for rest := m.Buf; len(rest) > 0; rest = rest[one.Seg:] {
		one.Seg = min(m.Seg, len(rest))
		one.Buf = rest[:one.Seg]
		if err := s.queue(v, &one); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) queue(v *vector, m *Message) error {
	if v.n == len(v.hdrs) {
		if err := s.flush(v); err != nil {
			return err
		}
	}
	if err := v.put(m); err != nil {
		s.fail(m, m.datagrams(), err)
	}
	return nil
}

// flush sends all that is queued in v. Its error is the end of the carrier.
func (s *sender) flush(v *vector) error {
	defer v.clear()
	for v.at < v.n {
		sent, errno, err := v.transmit()
		if err != nil {
			return err
		}
		s.sent(v.queued[v.at : v.at+sent])
		v.at += sent
		if errno == 0 {
			continue
		}
		if err := s.refused(&v.queued[v.at], errno); err != nil {
			return err
		}
		v.at++
	}
	return nil
}

// sent counts ms, that the system took.
func (s *sender) sent(ms []Message) {
	datagrams, segmented := 0, false
	for i := range ms {
		n := ms[i].datagrams()
		datagrams += n
		segmented = segmented || n > 1
	}
	s.b.count.datagramsSent.Add(uint64(datagrams))
	if segmented && !s.b.gso.proven.Load() {
		s.b.gso.proven.Store(true)
	}
}

// refused deals with a message that the system did not take.
func (s *sender) refused(m *Message, errno syscall.Errno) error {
	if m.Seg == len(m.Buf) || !s.b.gso.concerns(errno) {
		s.fail(m, m.datagrams(), errno)
		return nil
	}
	s.b.count.refused.Add(1)
	if s.single == nil {
		s.single = newVector(s.b)
	}
	before := s.failures
	if err := s.cut(s.single, m); err != nil {
		return err
	}
	if err := s.flush(s.single); err != nil {
		return err
	}
	if s.failures == before {
		s.b.gso.refused(errno, m, s.b.log)
	}
	return nil
}

func (s *sender) fail(m *Message, datagrams int, err error) {
	s.b.count.sendErrors.Add(uint64(datagrams))
	s.failures += datagrams
	if s.failed == nil {
		s.failed = fmt.Errorf("to %s: %w", m.Addr, err)
	}
}

// vectorLen is how many messages go in one sendmmsg: as many as a message has datagrams.
const vectorLen = MaxSegments

// vector is what one sendmmsg sends. A queued message of more than one datagram is sent whole
// with UDP_SEGMENT.
type vector struct {
	b        *batched
	hdrs     [vectorLen]mmsghdr
	iovs     [vectorLen]unix.Iovec
	controls [vectorLen]gsoControl
	names    [vectorLen]unix.RawSockaddrInet6
	queued   [vectorLen]Message
	n, at    int // at of the n queued messages are dealt with

	// try and wait are call, as RawConn wants it; made once, so that no call allocates.
	try   func(fd uintptr)
	wait  func(fd uintptr) bool
	sent  int
	errno syscall.Errno
}

// gsoControl is the one control message sent: UDP_SEGMENT with the segment size.
type gsoControl struct {
	hdr unix.Cmsghdr
	seg uint16
	_   [6]byte
}

func newVector(b *batched) *vector {
	v := &vector{b: b}
	for i := range v.hdrs {
		c := &v.controls[i]
		c.hdr.Level = unix.IPPROTO_UDP
		c.hdr.Type = unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(int(unsafe.Sizeof(c.seg))))
		h := &v.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&v.names[i]))
		h.Iov = &v.iovs[i]
		h.SetIovlen(1)
	}
	v.try = func(fd uintptr) { v.call(fd) }
	v.wait = v.call
	return v
}

func (v *vector) put(m *Message) error {
	i := v.n
	namelen, err := v.b.sockaddr.put(&v.names[i], m.Addr)
	if err != nil {
		return err
	}
	h := &v.hdrs[i].hdr
	h.Namelen = namelen
	v.iovs[i].Base = &m.Buf[0]
	v.iovs[i].SetLen(len(m.Buf))
	if m.Seg < len(m.Buf) {
		v.controls[i].seg = uint16(m.Seg)
		h.Control = (*byte)(unsafe.Pointer(&v.controls[i]))
		h.SetControllen(int(unsafe.Sizeof(v.controls[i])))
	} else {
		h.Control = nil
		h.SetControllen(0)
	}
	v.queued[i] = *m
	v.n++
	return nil
}

// clear empties v and lets go of the callers' memory.
func (v *vector) clear() {
	for i := range v.n {
		v.iovs[i].Base = nil
		v.queued[i] = Message{}
	}
	v.n, v.at = 0, 0
}

// transmit sends from at on until the first that the system does not take, whose errno it
// returns. An error is the end of the carrier.
//
// RawConn.Write lets one goroutine in at a time, so it is for waiting only.
func (v *vector) transmit() (sent int, errno syscall.Errno, err error) {
	err = v.b.raw.Control(v.try)
	if err == nil && v.errno == unix.EAGAIN {
		err = v.b.raw.Write(v.wait)
	}
	if err != nil {
		return 0, 0, err
	}
	return v.sent, v.errno, nil
}

// call reports whether the socket took or refused something, and need not be waited for.
func (v *vector) call(fd uintptr) bool {
	send := v.b.sendmmsg
	if send == nil {
		send = sendmmsg
	}
	for {
		v.sent, v.errno = send(fd, v.hdrs[v.at:v.n])
		if v.errno != unix.EINTR {
			return v.errno != unix.EAGAIN
		}
	}
}

func sendmmsg(fd uintptr, v []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&v[0])),
		uintptr(len(v)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
