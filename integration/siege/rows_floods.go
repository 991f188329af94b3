//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// Floods of datagrams that come to nothing, as fast as they can be sent.
var floodRows = []row{
	datagrams("datagrams-relay", theRelay, "noise", "unknown", "circuits"),
	datagrams("datagrams-tun", aPeer(tun), "noise", "unknown", "known"),
	datagrams("datagrams-netstack", aPeer(stack), "noise", "unknown", "known"),
}

// smallest is the least that Go's memory gives out at a time, in bytes.
const smallest = 8

// datagrams floods with one kind after the other, and asks what it cost in memory given out. Nothing else goes on
// meanwhile: what the victim allocates, it allocates for the flood.
func datagrams(id string, t target, kinds ...string) row {
	return row{id, fmt.Sprintf("datagrams at line rate at %s: %s", t.name, strings.Join(kinds, ", ")), func(s *siege) {
		s.env = []string{"GODEBUG=gctrace=1"}
		f := t.field(s)
		index := f.index(t)
		v := t.victim(f)
		for _, kind := range kinds {
			x := f.flood(kind, t.number, 0, "-index", fmt.Sprint(index))
			x.at(victim)
			s.sleep(pick(s, time.Second, 50*time.Millisecond)) // what it needs for its work, it has from here on
			said, collected, arrived := logged(v), collections(v), f.arrived()
			s.sleep(pick(s, 5*time.Second, 250*time.Millisecond))
			received := f.arrived() - arrived
			given := allocated(v, collected)
			x.end(new(flooded))
			each := float64(given) / float64(received)
			s.measured(each < smallest, fmt.Sprintf("%s: nothing is allocated for a datagram", kind),
				"under %.2f bytes each, of %d received", each, received)
			n := logged(v) - said
			s.found(n <= fewLines, fmt.Sprintf("%s: no more than %d lines in the log", kind, fewLines), "%d", n)
		}
		c, err := f.hostA.Dial("tcp", f.service(service.EchoPort))
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
	if conn, err := f.hostA.Dial("tcp", f.service(service.EchoPort)); err == nil {
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

// collection is a line of GODEBUG=gctrace=1: what there was when a collection began, when it ended, and what
// was in use, in MB.
var collection = regexp.MustCompile(`(?m)^gc \d+ .* (\d+)->(\d+)->(\d+) MB, (\d+) MB goal`)

// collections is how many there have been.
func collections(p *lab.Process) int { return len(collection.FindAllString(p.Output(), -1)) }

// allocated is no less than what p has allocated since there had been so many collections, in bytes: what collections
// have found new, and what the next would be due for.
func allocated(p *lab.Process, since int) (bytes int) {
	const mb = 1 << 20
	live, goal := 0, 4
	for i, m := range collection.FindAllStringSubmatch(p.Output(), -1) {
		var n [4]int
		for k := range n {
			n[k], _ = strconv.Atoi(m[k+1]) // digits
		}
		if i >= since {
			bytes += (n[0] - live) * mb
		}
		live, goal = n[2], max(4, 2*n[2])
	}
	return bytes + (goal-live)*mb
}

// logged is how many lines a process has logged, without what it says of collections.
func logged(p *lab.Process) int {
	return lines(p) - collections(p)
}
