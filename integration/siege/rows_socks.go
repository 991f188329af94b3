//go:build linux

package main

import (
	"fmt"
	"time"
)

// Crowds at a SOCKS listener, and clients that take their time.
var socksRows = []row{
	{"socks-idle", "connections by a rootless peer's proxy into a network that another advertises, all open at once and silent", (*siege).idleCrowd},
	{"socks-busy", "connections by the same way that all carry at once, both ways", (*siege).busyCrowd},
	{"socks-slow", "clients of the proxy that send a byte a second, are silent, or never read", (*siege).slowCrowd},
}

// What is asked.
const (
	idleCost  = 64 << 10 // bytes of both peers, for a connection that has nothing to carry
	stallCost = 1 << 20  // and for one that has, whose client does not take it
	promptly  = 2 * time.Second
)

func (s *siege) idleCrowd() {
	size := pick(s, 10000, 300)
	d := s.door(size, "")
	conns := d.openAll(10) // what the first connection of all costs, it has cost
	before := d.resident(d.a) + d.resident(d.b)
	begin := time.Now()
	conns = append(conns, d.openAll(size)...)
	s.progress("%d connections after %v", size, time.Since(begin).Round(time.Millisecond))
	s.sleep(pick(s, 15*time.Second, time.Second)) // quiet, as a crowd is that idles
	a, b := d.resident(d.a), d.resident(d.b)
	cost := (a + b - before) / float64(size)
	s.measured(cost < idleCost, fmt.Sprintf("%d idle connections cost the two peers less than %d kB each", size, idleCost/1000),
		"%.1f kB; resident %.0f and %.0f MB", cost/1000, a/1e6, b/1e6)
	begin = time.Now()
	late := d.openAll(1)
	took := time.Since(begin)
	s.measured(took < promptly, fmt.Sprintf("one more is served within %v", promptly), "%v", took.Round(time.Millisecond))
	late[0].Close()
	lost := 0
	for i := 0; i < len(conns); i += max(1, len(conns)/100) {
		if d.echo(conns[i], i, 1<<10) != nil {
			lost++
		}
	}
	s.found(lost == 0, "a hundred of them, all over the crowd, carry again", "%d do not", lost)
	for _, c := range conns {
		c.Close()
	}
	d.emptied()
}

func (s *siege) busyCrowd() {
	size, amount := pick(s, 2000, 100), 256<<10
	d := s.door(size, "")
	conns := d.openAll(size)
	begin := time.Now()
	stalls, err := d.exchange(conns, amount)
	took := time.Since(begin)
	s.found(err == nil, fmt.Sprintf("%d connections carry %d kB each way at once, whole, and end by their ends of stream", size, amount/1000), "%s", said(err, took))
	s.measured(stalls < 10*time.Second, "none stands still for 10 s", "%v at most", stalls.Round(10*time.Millisecond))
}

func (s *siege) slowCrowd() {
	const handshake, idle = 3 * time.Second, 10 * time.Second
	each := pick(s, 500, 20)
	d := s.door(3*each, fmt.Sprintf(", handshake_timeout: %v, idle_timeout: %v", handshake, idle))
	for _, c := range d.openAll(10) {
		c.Close()
	}
	before := d.resident(d.a) + d.resident(d.b)
	silent := d.slow(each, nil)
	dribbling := d.slow(each, func(i int) []byte { return []byte{5, 255}[min(i, 1):][:1] })
	stalled := d.unread(each)
	s.sleep(2 * time.Second)
	begin := time.Now()
	good := d.openAll(1)
	took := time.Since(begin)
	s.measured(took < promptly, fmt.Sprintf("another client is served within %v meanwhile", promptly), "%v", took.Round(time.Millisecond))
	good[0].Close()
	cost := (d.resident(d.a) + d.resident(d.b) - before) / float64(3*each)
	s.measured(cost < stallCost, fmt.Sprintf("a slow client costs the two peers less than %d kB", stallCost/1000), "%.0f kB on average of %d", cost/1000, 3*each)
	for _, k := range []struct {
		name  string
		ended <-chan time.Duration
		limit time.Duration
	}{
		{"that is silent", silent, handshake},
		{"that sends a byte a second", dribbling, handshake},
		{"that never reads", stalled, 4 * idle}, // it is idle once all buffers are full
	} {
		n, last := 0, time.Duration(0)
		for t := range k.ended {
			n++
			last = max(last, t)
		}
		s.measured(n == each && last < k.limit+2*time.Second, fmt.Sprintf("a client %s is turned out within %v", k.name, k.limit),
			"%d of %d, after %v at most", n, each, last.Round(100*time.Millisecond))
	}
	d.emptied()
}

func said(err error, took time.Duration) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("all, in %v", took.Round(100*time.Millisecond))
}
