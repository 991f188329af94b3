//go:build linux

package contestants

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

// end is how the overlay ends at one side.
type end int

const (
	tunEnd   end = iota // a TUN device; the load is on the kernel's sockets
	stackEnd            // a TCP/IP stack, with the load in the same process
	socksEnd            // the same, behind a proxy; the load is on the kernel's sockets
)

const (
	// ColdMembers is how many members may dial B cold, each with a key of its own: a key has
	// a budget of handshakes.
	ColdMembers = 30

	memberA, memberB = 1, 2
	firstCold        = 3

	port    = "5040"
	proxyAt = "127.0.0.1:1080"
)

// adit joins two ends directly: A knows where B is.
func adit(endA, endB end) Contestant {
	return Contestant{Name: Adit, up: func(s *Site) *Pair {
		a, b := s.direct()
		return s.adit(a, endA, b, endB, aditDirect())
	}}
}

// aditWithout has some offloads of the carriers switched off, as on a network or a kernel that has none.
func aditWithout(name, switches string) Contestant {
	return Contestant{Name: name, Variant: true, up: func(s *Site) *Pair {
		a, b := s.direct()
		knows := aditDirect()
		knows.a += "udp: {" + switches + "}\n"
		knows.b += "udp: {" + switches + "}\n"
		return s.adit(a, tunEnd, b, tunEnd, knows)
	}}
}

func aditRelayed(endA, endB end) Contestant {
	return Contestant{Name: Adit, up: func(s *Site) *Pair {
		a, relay, b := s.relayed()
		r := s.aditRelay(relay, memberB)
		via := func(addr string) string {
			return fmt.Sprintf("relays: [{public_key: %q, endpoint: \"%s:%s\"}]\n", roster.Key(roster.Relay).Public(), addr, port)
		}
		p := s.adit(a, endA, b, endB, aditKnows{a: via(addrRelayA), b: via(addrRelayB)})
		p.Relay = r
		return p
	}}
}

func aditWired() Contestant {
	return Contestant{Name: Adit, up: func(s *Site) *Pair {
		a, b, w := s.wired()
		p := s.adit(a, stackEnd, b, stackEnd, aditDirect())
		p.Wire = w
		return p
	}}
}

// aditKnows is what the files of the two ends, and of those who dial cold, say of others.
type aditKnows struct{ a, b, cold string }

func aditDirect() aditKnows {
	at := func(n int, endpoint string) string {
		return fmt.Sprintf("  - {public_key: %q, allowed_ips: [%v/32, \"%v/128\"]%s}\n", roster.Key(n).Public(), roster.IPv4(n), roster.IPv6(n), endpoint)
	}
	toB := "peers:\n" + at(memberB, fmt.Sprintf(", endpoint: \"%s:%s\"", addrB, port))
	var fromAll strings.Builder
	fmt.Fprintf(&fromAll, "listen: \":%s\"\npeers:\n", port)
	for n := range firstCold + ColdMembers {
		if n != roster.Relay && n != memberB {
			fromAll.WriteString(at(n, ""))
		}
	}
	return aditKnows{a: toB, b: fromAll.String(), cold: toB}
}

func (s *Site) adit(a *lab.Host, endA end, b *lab.Host, endB end, knows aditKnows) *Pair {
	p := &Pair{IPv4: roster.IPv4(memberB).String(), IPv6: roster.IPv6(memberB).String()}
	var join []string
	if knows.cold != "" && endA == stackEnd {
		for i := range ColdMembers {
			s.aditFile(fmt.Sprintf("cold%d.yaml", i), firstCold+i, "mode: netstack\n"+knows.cold)
		}
		join = []string{"-join", s.path("cold%d.yaml")}
	}
	var processB, processA *lab.Process
	p.B, processB = s.aditEnd(b, memberB, endB, knows.b)
	p.A, processA = s.aditEnd(a, memberA, endA, knows.a, join...)
	p.Ends = []*lab.Process{processA, processB}
	return p
}

// aditFile writes a peer's configuration and returns its path.
func (s *Site) aditFile(name string, member int, more string) string {
	s.aditKey(member)
	return s.file(name, fmt.Sprintf("private_key_file: member%d.key\naddresses: [%v/%d, \"%v/%d\"]\ncontrol: off\nlog: {level: warn}\n%s",
		member, roster.IPv4(member), roster.Bits4, roster.IPv6(member), roster.Bits6, more))
}

func (s *Site) aditKey(member int) {
	k := roster.Key(member)
	s.file(fmt.Sprintf("member%d.key", member), base64.StdEncoding.EncodeToString(k[:]))
}

// aditEnd runs one end, and returns its agent and the process that is the tunnel.
func (s *Site) aditEnd(h *lab.Host, member int, e end, knows string, join ...string) (*load.Controller, *lab.Process) {
	name := fmt.Sprintf("member%d.yaml", member)
	switch e {
	case tunEnd:
		tunnel := s.start(h, "adit", "up", "-c", s.aditFile(name, member, "mode: tun\n"+knows))
		return s.sockets(h), tunnel
	case stackEnd:
		return s.agent(h, "aditstack", append(join, "-c", s.aditFile(name, member, "mode: netstack\n"+knows))...)
	default:
		tunnel := s.start(h, "adit", "up", "--socks", proxyAt, "-c", s.aditFile(name, member, "mode: netstack\n"+knows))
		return s.sockets(h, "-socks", proxyAt), tunnel
	}
}

// aditRelay runs a relay for the members 1 to members, with env added to its environment.
func (s *Site) aditRelay(h *lab.Host, members int, env ...string) *lab.Process {
	s.aditKey(roster.Relay)
	var b strings.Builder
	fmt.Fprintf(&b, "private_key_file: member%d.key\ncontrol: off\nlisten: \":%s\"\nmembers:\n", roster.Relay, port)
	for n := 1; n <= members; n++ {
		fmt.Fprintf(&b, "  - {name: m%d, public_key: %q, allowed_ips: [%v/32, \"%v/128\"]}\n", n, roster.Key(n).Public(), roster.IPv4(n), roster.IPv6(n))
	}
	p := h.Command(s.Programs+"/adit", "relay", "-c", s.file("relay.yaml", b.String()))
	p.Env = env
	p.Start()
	s.says(p, "msg=ready")
	return p
}
