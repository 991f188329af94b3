//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/internal/service"
)

// Floods of datagrams that come to nothing, as fast as they can be sent.
var floodRows = []row{
	datagrams("datagrams-relay", theRelay, "noise", "unknown", "circuits"),
	datagrams("datagrams-tun", aPeer(tun), "noise", "unknown", "known"),
	datagrams("datagrams-netstack", aPeer(stack), "noise", "unknown", "known"),
}

const (
	// smallest is the least that Go's memory gives out at a time, in bytes.
	smallest = 8

	// enough datagrams, that what cannot be seen of what is given out, up to 4 MB, is less than that for each.
	enough = 1_000_000
)

// datagrams floods with one kind after the other, and asks what it cost in memory given out. Nothing else goes on
// meanwhile: what the victim allocates, it allocates for the flood.
func datagrams(id string, t target, kinds ...string) row {
	return row{id, fmt.Sprintf("datagrams at line rate at %s: %s", t.name, strings.Join(kinds, ", ")), func(s *siege) {
		f := t.field(s)
		index := f.index(t)
		v := t.victim(f)
		for _, kind := range kinds {
			x := f.flood(kind, t.number, 0, "-index", fmt.Sprint(index))
			x.at(victim)
			s.sleep(pick(s, time.Second, 50*time.Millisecond)) // what it needs for its work, it has from here on
			said, collected, arrived := logged(v), collections(v), f.arrived()
			received := 0
			for end := time.Now().Add(pick(s, time.Minute, 200*time.Millisecond)); received < enough && time.Now().Before(end); {
				s.sleep(100 * time.Millisecond)
				received = f.arrived() - arrived
			}
			given := allocated(v, collected)
			x.end(new(flooded))
			each := float64(given) / float64(received)
			s.measured(each < smallest, fmt.Sprintf("%s: nothing is allocated for a datagram", kind),
				"under %.2f bytes each, of %d received", each, received)
			n := logged(v) - said
			s.found(n <= fewLines, fmt.Sprintf("%s: no more than %d lines in the log", kind, fewLines), "%d", n)
		}
		c, err := f.s.dial(f.hostA, "tcp", f.service(service.EchoPort))
		s.found(err == nil, "the members still reach each other", "%v", orYes(err))
		if err == nil {
			c.Close()
		}
	}}
}

func orYes(err error) any {
	if err == nil {
		return "they do"
	}
	return err
}

// index is one by which the victim knows a session of its own, as whoever is on the way sees it.
func (f *field) index(t target) uint32 {
	if t.number == roster.Relay {
		return 0 // its sessions are quiet
	}
	c := f.hostA.Capture("eth0")
	if conn, err := f.s.dial(f.hostA, "tcp", f.service(service.EchoPort)); err == nil {
		conn.Close()
	}
	for _, frame := range c.Stop() {
		const ethernet, headers = 14, 28
		if b := frame.Data; frame.Outgoing && len(b) >= ethernet+headers+32 && b[ethernet+headers] == 4 {
			return binary.BigEndian.Uint32(b[ethernet+headers+4:])
		}
	}
	f.s.Fatalf("no data went by")
	return 0
}

// arrived is how many datagrams the processes of the victim's host have received so far.
func (f *field) arrived() int {
	h := f.hostRelay
	if h == nil {
		h = f.hostB
	}
	for line := range strings.Lines(h.Run("cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "Udp:" {
			if n, err := strconv.Atoi(fields[1]); err == nil {
				return n
			}
		}
	}
	f.s.Fatalf("the kernel does not say what arrived")
	return 0
}
