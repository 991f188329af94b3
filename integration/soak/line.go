package main

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A line is the way to a UDP socket on loopback, and in both directions does what NATs and bad networks do. Who sends to
// its address is seen at the far end as a port of the line's own, another after forget.
type line struct {
	near *net.UDPConn
	far  netip.AddrPort

	mu      sync.Mutex // guards what follows
	flows   map[netip.AddrPort]*net.UDPConn
	quality quality
	closed  bool
	pumps   sync.WaitGroup
}

// quality is what becomes of datagrams on a line.
type quality struct {
	loss, overtake float64 // shares: those that overtake are not delayed
	delay          time.Duration
}

func newLine(far netip.AddrPort) (*line, error) {
	near, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	l := &line{near: near, far: far, flows: make(map[netip.AddrPort]*net.UDPConn)}
	l.pumps.Go(l.outward)
	return l, nil
}

func (l *line) addr() string { return l.near.LocalAddr().String() }

// set changes the quality.
func (l *line) set(q quality) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quality = q
}

// forget has every flow begin with a port of its own again.
func (l *line) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.flows {
		c.Close()
	}
	clear(l.flows)
}

func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.near.Close()
	l.forget()
	l.pumps.Wait()
}

// outward carries what comes to the near end.
func (l *line) outward() {
	b := make([]byte, 64<<10)
	for {
		n, from, err := l.near.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if c := l.flow(from); c != nil {
			l.carry(b[:n], func(b []byte) { c.Write(b) })
		}
	}
}

// flow returns the socket by which what comes from an address goes on.
func (l *line) flow(from netip.AddrPort) *net.UDPConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.flows[from]; c != nil || l.closed {
		return c
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.far))
	if err != nil {
		return nil
	}
	l.flows[from] = c
	l.pumps.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // nobody listens at the far end at present
				time.Sleep(time.Millisecond)
				continue
			}
			l.carry(b[:n], func(b []byte) { l.near.WriteToUDPAddrPort(b, from) })
		}
	})
	return c
}

// carry sends b on now, later, or never. What is sent after the end is lost.
func (l *line) carry(b []byte, send func([]byte)) {
	l.mu.Lock()
	q := l.quality
	l.mu.Unlock()
	switch {
	case q.loss > 0 && rand.Float64() < q.loss:
	case q.delay > 0 && rand.Float64() >= q.overtake:
		b = append([]byte(nil), b...)
		time.AfterFunc(q.delay, func() { send(b) })
	default:
		send(b)
	}
}
