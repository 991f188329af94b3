//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

// Floods of handshakes, beside a stream between two members.
var handshakeRows = []row{
	handshakes("handshakes-relay", "valid", theRelay),
	handshakes("handshakes-relay-invalid", "invalid", theRelay),
	handshakes("handshakes-tun", "valid", aPeer(tun)),
	handshakes("handshakes-tun-invalid", "invalid", aPeer(tun)),
	handshakes("handshakes-netstack", "valid", aPeer(stack)),
	provenHandshakes("handshakes-relay-proven", theRelay),
	provenHandshakes("handshakes-tun-proven", aPeer(tun)),
}

// target is who is attacked.
type target struct {
	name   string
	number int // in the roster
	field  func(*siege) *field
	victim func(*field) *lab.Process
	knows  string // what newcomers know
}

var theRelay = target{"a relay", roster.Relay, (*siege).relayed, func(f *field) *lab.Process { return f.relay }, via(victimIP)}

func aPeer(m mode) target {
	return target{
		"a peer in mode " + string(m), memberB,
		func(s *siege) *field { return s.direct(m) }, func(f *field) *lab.Process { return f.b }, at(victimIP),
	}
}

const (
	handshakeRate = 20000
	leastBulk     = 0.85 // of what it is without
	inTime        = 2 * time.Second
	fewLines      = 10

	// A measurement, and before it what the stream needs to find its new pace. Short, and many: what else the machine does is
	// then the same for both of a pair.
	window = 400 * time.Millisecond
	settle = 100 * time.Millisecond
)

func handshakes(id, kind string, t target) row {
	return row{id, fmt.Sprintf("%d handshakes a second at %s, %s MAC1, forged sources", handshakeRate, t.name, kind), func(s *siege) {
		f := t.field(s)
		f.besideFlood(t, f.flood(kind, t.number, handshakeRate), handshakeRate)
	}}
}

// proven are the addresses that the attacker really has.
var proven = netip.MustParsePrefix("203.0.113.128/25")

func provenHandshakes(id string, t target) row {
	attack := fmt.Sprintf("%d handshakes a second at %s, from %d addresses that answer cookies", handshakeRate, t.name, 1<<(32-proven.Bits()))
	return row{id, attack, func(s *siege) {
		f := t.field(s)
		f.hostFoe.Own(proven.String())
		x := f.foe(f.hostFoe, "prove", "-victim", fmt.Sprint(t.number), "-from", proven.String(), "-rate", fmt.Sprint(handshakeRate))
		r := f.besideFlood(t, x, handshakeRate)
		s.found(r.Stamped > 0, "cookies are asked for and shown", "%d of %d addresses hold one, of %d given", r.Stamped, r.Addresses, r.Cookies)
	}}
}

// besideFlood asks of a flood what it does to the stream, to newcomers, to the victim's memory and log. It is
// the same flood all the time: when it is not at the victim, it is at a socket beside it that nobody reads, so that
// what it costs to send and to carry is on both sides of the comparison.
func (f *field) besideFlood(t target, x *foe, rate int) flooded {
	s, v := f.s, t.victim(f)
	b := f.bulk()
	x.at(victim)
	f.newcomer(firstNewcomer, t.knows)
	f.warm(v)
	before := f.resident(v)
	said := logged(v)
	var without, with, kept []float64
	for range pick(s, 25, 2) {
		x.at(beside)
		s.sleep(settle)
		w := b.rate(window)
		x.at(victim)
		s.sleep(settle)
		under := b.rate(window)
		without, with, kept = append(without, w), append(with, under), append(kept, under/w)
	}
	ratio := median(kept)
	s.measured(ratio >= leastBulk, fmt.Sprintf("the stream keeps %.0f %%", leastBulk*100), "%.0f %%: %s, without %s", ratio*100, gbit(median(with)), gbit(median(without)))
	var entries []time.Duration
	for n := range pick(s, 3, 1) {
		entries = append(entries, f.newcomer(firstNewcomer+1+n, t.knows))
	}
	worst := slices.Max(entries)
	s.measured(worst < inTime, fmt.Sprintf("a newcomer is in within %v", inTime), "%v at most, of %d", worst.Round(10*time.Millisecond), len(entries))
	after := f.resident(v)
	s.measured(after <= before*1.1, "memory stays as it is, to 10 %", "%.1f MB, before %.1f MB", after/1e6, before/1e6)
	n := logged(v) - said
	s.found(n <= fewLines, fmt.Sprintf("no more than %d lines in the log", fewLines), "%d", n)
	var r flooded
	x.end(&r)
	s.measured(r.rate() > 0.95*float64(rate), fmt.Sprintf("%d datagrams a second are sent", rate), "%.0f", r.rate())
	return r
}
