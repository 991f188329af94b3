//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
)

// Strangers who come once and never again.
var strangerRows = []row{
	strangers("strangers-relay", theRelay),
	strangers("strangers-tun", aPeer(tun)),
}

func strangers(id string, t target) row {
	const crowd, rate = 1_000_000, 50_000
	return row{id, fmt.Sprintf("a million forged sources at %s: scans, handshakes with and without MAC1, data and circuit data", t.name), func(s *siege) {
		f := t.field(s)
		v := t.victim(f)
		first := f.flood("mixed", t.number, rate)
		first.at(victim)
		f.warm(v)
		first.end(new(flooded))
		x := f.flood("mixed", t.number, rate, "-count", fmt.Sprint(pick(s, crowd, crowd/50)))
		s.sleep(pick(s, 2*time.Second, 0))
		before, said := f.resident(v), logged(v)
		x.at(victim)
		x.spent()
		s.sleep(pick(s, 5*time.Second, 0))
		after := f.resident(v)
		s.measured(after <= before*1.1, "memory comes back to what it was, to 10 %", "%.1f MB, before %.1f MB", after/1e6, before/1e6)
		n := logged(v) - said
		s.found(n <= fewLines, fmt.Sprintf("no more than %d lines in the log", fewLines), "%d", n)
		c, err := f.s.dial(f.hostA, "tcp", f.service(service.EchoPort))
		s.found(err == nil, "the members still reach each other", "%v", orYes(err))
		if err == nil {
			c.Close()
		}
		var r flooded
		x.end(&r)
		s.measured(r.Sent >= crowd, fmt.Sprintf("%d datagrams are sent", crowd), "%d, %.0f a second", r.Sent, r.rate())
	}}
}
