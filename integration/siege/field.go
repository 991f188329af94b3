//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// A field is a lab with an overlay: two members, a relay if they reach each other by one only, and the wild, a network on which
// attackers are, and newcomers. Whoever is attacked, the victim, is on the wild too. What it answers to forged
// sources does go out, by a cable to where it is thrown away: what others do with it does not cost this machine.
type field struct {
	*lab.Network
	s   *siege
	dir string

	wild                                      *lab.Switch
	hostA, hostB, hostRelay, hostFoe, hostNew *lab.Host
	a, b, relay                               *lab.Process
}

// Members by their numbers in the roster.
const (
	memberA, memberB = 1, 2
	firstNewcomer    = 3
	newcomers        = 5
)

const (
	port     = 5040
	idlePort = 5041 // of the victim: a socket of nobody's, beside the one that is attacked
	wildNet  = "203.0.113.0/24"
	victimIP = "203.0.113.1"
	foeIP    = "203.0.113.9"
	newIP    = "203.0.113.4"
)

var (
	victim = netip.AddrPortFrom(netip.MustParseAddr(victimIP), port)
	beside = netip.AddrPortFrom(netip.MustParseAddr(victimIP), idlePort)

	// everywhere is where forged sources are from.
	everywhere = netip.MustParsePrefix("198.18.0.0/15")
)

// newField makes the hosts that all fields have, and the one that is to be the victim.
func (s *siege) newField(victim string, opts ...lab.Option) (f *field, v *lab.Host) {
	f = &field{Network: lab.New(s), s: s}
	f.dir = f.TempDir(lab.User{})
	f.wild = f.Switch("wild")
	v = f.Host(victim, append(opts, lab.On(f.wild, victimIP+"/24"))...)
	f.hostFoe = f.Host("foe", lab.On(f.wild, foeIP+"/24"))
	f.hostNew = f.Host("newcomer", lab.On(f.wild, newIP+"/24"))
	f.Cable(lab.Plug(v), lab.Plug(f.Host("elsewhere")))
	v.SendNowhere(everywhere.String(), "eth1")
	v.ListenPacket("udp4", beside.String())
	return f, v
}

// relayed is a field whose relay is attacked. The members reach the relay only.
func (s *siege) relayed() *field { return s.relayedBy("") }

// relayedBy is relayed with more in the relay's file.
func (s *siege) relayedBy(more string) *field {
	f, relay := s.newField("relay")
	f.hostRelay = relay
	f.hostA, f.hostB = f.Host("a"), f.Host("b")
	f.Cable(lab.Plug(f.hostA, "192.0.2.2/24"), lab.Plug(relay, "192.0.2.1/24"))
	f.Cable(lab.Plug(f.hostB, "198.51.100.2/24"), lab.Plug(relay, "198.51.100.1/24"))
	f.relay = f.start(relay, "adit", "relay", "-c", f.relayFile(firstNewcomer+newcomers-1, more))
	f.a = f.member(f.hostA, memberA, tun, via("192.0.2.1"))
	f.b = f.member(f.hostB, memberB, tun, via("198.51.100.1"))
	// Ready is not online: a relay says of who is not that nobody is there.
	for _, n := range []int{memberA, memberB} {
		f.says(f.relay, fmt.Sprintf("msg=session remote=m%d ", n))
	}
	f.serve(f.hostB)
	return f
}

// direct is a field whose member B is attacked, which A and newcomers know to find.
func (s *siege) direct(mode mode) *field {
	f, b := s.newField("b")
	f.hostB = b
	f.hostA = f.Host("a")
	f.Cable(lab.Plug(f.hostA, "192.0.2.2/24"), lab.Plug(b, "192.0.2.1/24"))
	var all strings.Builder
	fmt.Fprintf(&all, "listen: \":%d\"\npeers:\n", port)
	for n := 1; n < firstNewcomer+newcomers; n++ {
		if n != memberB {
			fmt.Fprintf(&all, "  - {public_key: %q, allowed_ips: [%v/32]}\n", roster.Key(n).Public(), roster.IPv4(n))
		}
	}
	f.b = f.member(b, memberB, mode, all.String())
	if mode == tun {
		f.serve(b)
	}
	f.a = f.member(f.hostA, memberA, tun, at("192.0.2.1"))
	return f
}

// via is what a member's file says of the relay, at what is its address for that member.
func via(addr string) string {
	return fmt.Sprintf("relays: [{public_key: %q, endpoint: \"%s:%d\"}]\n", roster.Key(roster.Relay).Public(), addr, port)
}

// at is what a file says of B, where it is found directly.
func at(addr string) string {
	return fmt.Sprintf("peers: [{public_key: %q, allowed_ips: [%v/32], endpoint: \"%s:%d\"}]\n", roster.Key(memberB).Public(), roster.IPv4(memberB), addr, port)
}

// mode is where a member ends the overlay.
type mode string

const (
	tun   mode = "tun"
	stack mode = "netstack" // with the services in the same process
)

// member runs a member until it is ready.
func (f *field) member(h *lab.Host, n int, m mode, knows string) *lab.Process {
	file := f.memberFile(n, m, knows)
	if m == stack {
		return f.start(h, "box", "-c", file)
	}
	return f.start(h, "adit", "up", "-c", file)
}

func (f *field) memberFile(n int, m mode, knows string) string {
	return f.file(fmt.Sprintf("member%d.yaml", n), fmt.Sprintf("private_key_file: %s\naddresses: [%v/%d]\nmode: %s\n%s", f.key(n), roster.IPv4(n), roster.Bits4, m, knows))
}

func (f *field) key(n int) string {
	k := roster.Key(n)
	return f.file(fmt.Sprintf("member%d.key", n), base64.StdEncoding.EncodeToString(k[:]))
}

func (f *field) file(name, content string) string {
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		f.s.Fatalf("%v", err)
	}
	return path
}

// serve offers the services of package service on all addresses of a host with a TUN device.
func (f *field) serve(h *lab.Host) {
	if err := service.Serve(onHost{h}); err != nil {
		f.s.Fatalf("%v", err)
	}
}

// onHost is a host as package service wants a network.
type onHost struct{ *lab.Host }

func (h onHost) Listen(network, address string) (net.Listener, error) {
	return h.Host.Listen(network, address), nil
}

func (h onHost) ListenPacket(network, address string) (net.PacketConn, error) {
	return h.Host.ListenPacket(network, address), nil
}

// launch runs one of the programs; start also waits until it says that it is ready.
func (f *field) launch(h *lab.Host, program string, args ...string) *lab.Process {
	p := h.Command(filepath.Join(f.s.programs, program), args...)
	p.Env = []string{traced}
	p.Start()
	return p
}

func (f *field) start(h *lab.Host, program string, args ...string) *lab.Process {
	p := f.launch(h, program, args...)
	f.says(p, "msg=ready")
	return p
}

// patience is how long anything is waited for, on a machine that has other things to do.
const patience = time.Minute

// says waits for text in a process's output.
func (f *field) says(p *lab.Process, text string) {
	ctx, cancel := context.WithTimeout(f.s.Context(), patience)
	defer cancel()
	if err := p.WaitFor(ctx, text); err != nil {
		f.s.Fatalf("%v", err)
	}
}

// service is where B offers one of the services of package service, to members.
func (f *field) service(port string) string { return roster.IPv4(memberB).String() + ":" + port }
