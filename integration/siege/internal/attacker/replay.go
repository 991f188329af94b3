//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// replayed is what was seen and sent again.
type replayed struct {
	Seen int // datagrams
	Sent int
}

// A datagram is one that went by.
type datagram struct {
	from, to netip.AddrPort
	payload  []byte
}

// mostSeen is how many datagrams are kept.
const mostSeen = 200_000

// replay keeps the UDP that this host forwards, from its start until the first line. Then it sends all of it again, -times
// over, each time in another order, from where it came from and from -other; and says "spent".
func replay(o options, lines <-chan string) (any, error) {
	r, err := newRaw()
	if err != nil {
		return nil, err
	}
	s, err := newSniffer()
	if err != nil {
		return nil, err
	}
	fmt.Println("ready")
	if _, ok := <-lines; !ok {
		return nil, errors.New("called off")
	}
	seen := s.stop()
	if len(seen) == 0 {
		return nil, errors.New("nothing went by")
	}
	p := pace{}
	p.start(o.rate)
	for n := range o.times {
		order := rand.Perm(len(seen))
		if n == 0 { // as it was
			for i := range order {
				order[i] = i
			}
		}
		for at := 0; at < len(order); {
			for range min(p.due(), len(order)-at) {
				d := seen[order[at]]
				at++
				if err := r.send(d.from, d.to, d.payload); err != nil {
					return nil, err
				}
				if err := r.send(netip.AddrPortFrom(o.other, d.from.Port()), d.to, d.payload); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := r.flush(); err != nil {
		return nil, err
	}
	fmt.Println("spent")
	for range lines {
	}
	return replayed{len(seen), r.sent}, nil
}

// A sniffer keeps what this host sends of UDP over IPv4, and so what it forwards, once.
type sniffer struct {
	fd   int
	mu   sync.Mutex // guards what follows
	seen []datagram
	end  bool
}

func newSniffer() (*sniffer, error) {
	// Of what is sent only a socket for all protocols gets copies.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("a packet socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, fmt.Errorf("a packet socket: %w", err)
	}
	s := &sniffer{fd: fd}
	go s.run()
	return s, nil
}

func (s *sniffer) run() {
	defer unix.Close(s.fd)
	b := make([]byte, 64<<10)
	for {
		n, from, err := unix.Recvfrom(s.fd, b, 0)
		s.mu.Lock()
		if s.end || len(s.seen) == mostSeen {
			s.mu.Unlock()
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && ll.Pkttype == unix.PACKET_OUTGOING && ll.Protocol == networkOrder(unix.ETH_P_IP) {
			if d, ok := parse(b[:n]); ok {
				s.seen = append(s.seen, d)
			}
		}
		s.mu.Unlock()
	}
}

// stop returns what went by.
func (s *sniffer) stop() []datagram {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
	return s.seen
}

// parse reads an IPv4 packet that is a whole UDP datagram small enough to be sent again.
func parse(b []byte) (d datagram, ok bool) {
	if len(b) < headerLen || b[0] != 0x45 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || len(b) > maxPacket {
		return d, false
	}
	addr := func(ip, port []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), binary.BigEndian.Uint16(port))
	}
	return datagram{addr(b[12:16], b[20:]), addr(b[16:20], b[22:]), append([]byte(nil), b[headerLen:]...)}, true
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }
