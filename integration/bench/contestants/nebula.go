//go:build linux

package contestants

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

const (
	nebulaName = "nebula"

	// nebulaMTU is adit's, not Nebula's default of 1300: so it has as few packets to handle as adit.
	nebulaMTU = 1400
)

// nebula is Nebula with AES, its faster cipher where the processor knows it. A knows where B is.
var nebula = Contestant{Name: nebulaName, Foreign: true, up: func(s *Site) *Pair {
	a, b := s.direct()
	s.nebulaAuthority()
	p := &Pair{Ends: []*lab.Process{
		s.nebula(a, memberA, nebulaAt(memberB, addrB)),
		s.nebula(b, memberB, ""),
	}}
	return s.nebulaLoad(p, a, b)
}}

// nebulaRelayed has a third Nebula that is lighthouse and relay.
var nebulaRelayed = Contestant{Name: nebulaName, Foreign: true, up: func(s *Site) *Pair {
	a, relay, b := s.relayed()
	s.nebulaAuthority()
	const third = firstCold
	knows := func(addr string) string {
		return nebulaAt(third, addr) + fmt.Sprintf("lighthouse: {hosts: [%q]}\nrelay: {relays: [%q], use_relays: true}\n", roster.IPv4(third), roster.IPv4(third))
	}
	p := &Pair{
		Relay: s.nebula(relay, third, "lighthouse: {am_lighthouse: true}\nrelay: {am_relay: true}\n"),
		Ends: []*lab.Process{
			s.nebula(a, memberA, knows(addrRelayA)),
			s.nebula(b, memberB, knows(addrRelayB)),
		},
	}
	return s.nebulaLoad(p, a, b)
}}

func (s *Site) nebulaLoad(p *Pair, a, b *lab.Host) *Pair {
	p.A, p.B = s.sockets(a), s.sockets(b)
	p.IPv4, p.IPv6 = roster.IPv4(memberB).String(), roster.IPv6(memberB).String()
	return p
}

const nebulaPort = 4242

func nebulaAt(member int, addr string) string {
	return fmt.Sprintf("static_host_map: {%q: [\"%s:%d\"]}\n", roster.IPv4(member), addr, nebulaPort)
}

// nebulaAuthority makes the keys of the network.
func (s *Site) nebulaAuthority() {
	s.nebulaCert("ca", "-name", "bench", "-out-crt", s.path("ca.crt"), "-out-key", s.path("ca.key"))
}

func (s *Site) nebulaCert(args ...string) {
	out, err := exec.Command(filepath.Join(s.Programs, "nebula-cert"), args...).CombinedOutput()
	if err != nil {
		s.T.Fatalf("%s: nebula-cert %s: %v\n%s", s.Name, strings.Join(args, " "), err, out)
	}
}

// nebula runs a member.
func (s *Site) nebula(h *lab.Host, member int, more string) *lab.Process {
	name := s.path(fmt.Sprintf("member%d", member))
	s.nebulaCert("sign", "-ca-crt", s.path("ca.crt"), "-ca-key", s.path("ca.key"), "-name", fmt.Sprint("m", member),
		"-networks", fmt.Sprintf("%v/%d,%v/%d", roster.IPv4(member), roster.Bits4, roster.IPv6(member), roster.Bits6),
		"-out-crt", name+".crt", "-out-key", name+".key")
	file := s.file(fmt.Sprintf("member%d.yml", member), fmt.Sprintf(`pki: {ca: %q, cert: %q, key: %q}
listen: {host: 0.0.0.0, port: %d}
cipher: aes
punchy: {punch: true}
tun: {dev: nebula1, mtu: %d}
logging: {level: warning}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
%s`, s.path("ca.crt"), name+".crt", name+".key", nebulaPort, nebulaMTU, more))
	return s.start(h, "nebula", "-config", file)
}
