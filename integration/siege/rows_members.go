//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

// Members of a relay: many at once, and one that floods.
var memberRows = []row{
	{"members-crowd", "all members of a relay start at once, and each talks with others at once", (*siege).crowdAtRelay},
	{"members-flood", "a member sends circuit data as fast as it can, and nothing limits it", func(s *siege) { s.memberFlood(0, 0) }},
	{"members-flood-limited", "the same at a relay that limits each member to 100 MB a second", func(s *siege) { s.memberFlood(memberLimit, 0) }},
	{"members-flood-tenfold", "a member sends ten times the 100 MB a second that the relay allows each", func(s *siege) { s.memberFlood(memberLimit, 10*memberLimit) }},
}

const (
	crowdTime   = 10 * time.Second
	memberCost  = 20000 // bytes
	memberLimit = 100_000_000

	// A pair within its limit keeps most of what it has alone; what it may have is no more than that.
	leastBeside = 0.7
)

func (s *siege) crowdAtRelay() {
	size, each := pick(s, 1000, 50), 3
	s.raise(size)
	f := &field{Network: lab.New(s), s: s}
	f.dir = f.TempDir(lab.User{})
	f.hostRelay, f.hostFoe = f.Host("relay", lab.Route(everywhere.String(), foeIP)), f.Host("members")
	f.Cable(lab.Plug(f.hostRelay, victimIP+"/24"), lab.Plug(f.hostFoe, foeIP+"/24"))
	f.hostFoe.Own(everywhere.String())
	empty := f.start(f.hostRelay, "adit", "relay", "-c", f.relayFile(2, ""))
	s.sleep(time.Second)
	before := f.resident(empty)
	stop(empty)
	f.relay = f.start(f.hostRelay, "adit", "relay", "-c", f.relayFile(size, ""))
	c := f.crowd(size)
	begin := time.Now()
	c.startAll()
	missing := c.talk(each, crowdTime)
	took := time.Since(begin)
	s.measured(missing == 0 && took <= crowdTime, fmt.Sprintf("%d members with %d others each reach them all within %v", size, each, crowdTime),
		"after %v %d of %d are missing", took.Round(10*time.Millisecond), missing, size*each)
	s.sleep(pick(s, 7*time.Second, 0)) // quiet, as sessions are that are up
	cost := (f.resident(f.relay) - before) / float64(size)
	s.measured(cost < memberCost, fmt.Sprintf("a member with %d circuits costs the relay less than %d kB", 2*each, memberCost/1000), "%.1f kB", cost/1000)
}

// memberFlood has one member flood another with so many bytes a second, beside a stream between two others, at a relay that
// allows each so many. Zero is no limit.
func (s *siege) memberFlood(limit, rate int) {
	limits := ""
	if limit > 0 {
		limits = fmt.Sprintf("limits: {bytes_per_second_per_member: %d}\n", limit)
	}
	f := s.relayedBy(limits)
	b := f.bulk()
	d := pick(s, 8*time.Second, time.Second)
	b.rate(time.Second) // what it takes to get going
	without := b.rate(d)
	const from, to = firstNewcomer, firstNewcomer + 1
	at := victim.String()
	sink := f.launch(f.hostNew, "members", "sink", "-relay", at, "-member", fmt.Sprint(to), "-from", fmt.Sprint(from), "-for", (2 * d).String())
	f.says(sink, "online")
	source := f.launch(f.hostFoe, "members", "source", "-relay", at, "-member", fmt.Sprint(from), "-to", fmt.Sprint(to), "-size", "1400", "-rate", fmt.Sprint(rate), "-for", (2 * d).String())
	s.sleep(time.Second)
	with := b.rate(d)
	stop(source)
	stop(sink)
	after := b.rate(d)
	ratio := with / without
	seen := []any{ratio * 100, gbit(with), gbit(without)}
	if limit == 0 {
		s.found(true, "how much a stream between others keeps: no promise", "%.0f %%: %s, without %s", seen...)
	} else {
		s.measured(ratio >= leastBeside, fmt.Sprintf("a stream between others keeps %.0f %%", leastBeside*100), "%.0f %%: %s, without %s", seen...)
	}
	s.measured(after >= leastBulk*without, fmt.Sprintf("and %.0f %% when the flood is over", leastBulk*100), "%s", gbit(after))
}

// relayFile is that of a relay with so many members.
func (f *field) relayFile(members int, more string) string {
	text := fmt.Sprintf("private_key_file: %s\nlisten: \":%d\"\n%smembers:\n", f.key(roster.Relay), port, more)
	for n := 1; n <= members; n++ {
		text += fmt.Sprintf("  - {name: m%d, public_key: %q, allowed_ips: [%v/32]}\n", n, roster.Key(n).Public(), roster.IPv4(n))
	}
	return f.file("relay.yaml", text)
}
