//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/wire"
)

// proved is what a flood from real addresses came to.
type proved struct {
	flooded
	Addresses int
	Cookies   int // received
	Stamped   int // addresses that hold one now
}

// A stranger is an address that is really there, and answers cookies.
type stranger struct {
	from   netip.AddrPort
	conn   *net.UDPConn
	mu     sync.Mutex // guards what follows
	msg    []byte     // with MAC2, once there is a cookie
	cookie *wire.Cookie
	got    int
}

// prove sends initiations from all addresses of a prefix, which this host has, and shows the cookies it is given. Lines are as
// of flood.
func prove(o options, lines <-chan string) (any, error) {
	var all []*stranger
	for a := o.from.Masked().Addr(); o.from.Contains(a); a = a.Next() {
		s, err := newStranger(a, roster.Key(o.victim).Public())
		if err != nil {
			return nil, err
		}
		defer s.conn.Close()
		all = append(all, s)
		go s.listen()
	}
	if len(all) == 0 {
		return nil, errors.New("-from: want a prefix whose addresses this host has")
	}
	next := 0
	r, err := aim(o, lines, func() (netip.AddrPort, []byte) {
		s := all[next%len(all)]
		next++
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.from, s.msg
	})
	result := proved{flooded: r, Addresses: len(all)}
	for _, s := range all {
		s.mu.Lock()
		result.Cookies += s.got
		result.Stamped += min(s.got, 1)
		s.mu.Unlock()
	}
	return result, err
}

func newStranger(a netip.Addr, victim wire.PublicKey) (*stranger, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, uint16(20000+rand.IntN(20000)))))
	if err != nil {
		return nil, fmt.Errorf("an address of one's own: %w", err)
	}
	s := &stranger{from: c.LocalAddr().(*net.UDPAddr).AddrPort(), conn: c, cookie: wire.NewCookie(victim)}
	if s.msg, err = initiation(victim); err != nil {
		return nil, err
	}
	s.cookie.Stamp(s.msg, time.Now())
	return s, nil
}

// listen takes what it is answered, and stamps what it sends with each cookie.
func (s *stranger) listen() {
	b := make([]byte, maxPacket)
	for {
		n, err := s.conn.Read(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		if now := time.Now(); s.cookie.Open(b[:n], now) == nil {
			s.got++
			msg := append([]byte(nil), s.msg...) // the old one may be on its way
			s.cookie.Stamp(msg, now)
			s.msg = msg
		}
		s.mu.Unlock()
	}
}
