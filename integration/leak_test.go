//go:build linux

package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// TestFullTunnelLetsNothingBeside has traffic of all kinds while everything is to go into the overlay, and while the host
// moves from one network to another in the middle of it. On the underlay there are the datagrams of adit and nothing else.
func TestFullTunnelLetsNothingBeside(t *testing.T) {
	t.Parallel()
	w := newWayOut(t)
	p := w.startLaptop(anywhere4, anywhere6)
	if strings.Contains(p.Output(), "beside the tunnel") {
		t.Error("both families are warned of")
	}
	from := byRoute(w.laptopHost)
	from.awaitConversation(t, site4, soon)
	seen := w.laptopHost.Capture("any")
	talk := startTalk(t, from, site4)
	w.useInternet(t)

	for _, move := range []struct {
		name string
		do   func()
	}{
		{"another gateway", func() { w.laptopHost.SetGateway(); w.laptopHost.SetGateway(homeGate, homeGate6) }},
		{"another address", func() { w.laptopHost.ReplaceAddr(w.home, homeAddr, "192.168.1.77/24") }},
		{"the interface is down for a second", func() {
			w.laptopHost.Down(w.home)
			time.Sleep(time.Second) // the outage
			w.laptopHost.Up(w.home)
		}},
		{"another network, after a second of none", func() {
			w.laptopHost.Detach(w.home)
			time.Sleep(time.Second) // the way from one to the other
			w.laptopHost.Attach(w.cafe, cafeAddr, cafeAddr6)
			w.laptopHost.SetGateway(cafeGate, cafeGate6)
		}},
	} {
		move.do()
		wantInTime(t, "full tunnel: "+move.name, from.awaitFirst(t, site4, recoveryLimit), recoveryBound)
		talk.wantAnswer(t)
		talk.file.wantProgress(t, 1e6, recoveryLimit)
		from.awaitConversation(t, w.other.addr("IPv6"), soon) // by the relay
		w.useInternet(t)
	}
	talk.end(t)
	w.wantOnlyOverlay(t, seen)
}

// useInternet asks sites and name servers, of both families, of which some answer and some do not.
func (w *wayOut) useInternet(t *testing.T) {
	t.Helper()
	from := byRoute(w.laptopHost)
	for _, site := range []string{site4, site6} {
		if _, err := from.whoami(t.Context(), site); err != nil {
			t.Error(err)
		}
		ping(t, w.laptopHost, site, 1)
		for _, network := range []string{"tcp", "udp"} {
			c, err := w.laptopHost.Dial(network, net.JoinHostPort(site, dnsPort))
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(soon))
			got := make([]byte, len(dnsQuery))
			if _, err := c.Write([]byte(dnsQuery)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(got); err != nil {
				t.Fatalf("the name server at %s does not answer by %s: %v", site, network, err)
			}
			c.Close()
		}
	}
	w.disperse(t, "192.0.2.53", "2001:db8:f::53") // nobody
}

const dnsQuery = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"

// disperse sends a question to each address, and waits for no answer. That the kernel may refuse is as good.
func (w *wayOut) disperse(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		if c, err := w.laptopHost.Dial("udp", net.JoinHostPort(a, dnsPort)); err == nil {
			c.Write([]byte(dnsQuery))
			c.Close()
		}
	}
}

// wantOnlyOverlay ends a capture of all of the laptop's interfaces, and wants it to show no more than adit's datagrams on
// the underlay.
func (w *wayOut) wantOnlyOverlay(t *testing.T, seen *lab.Capture) {
	t.Helper()
	overlay, beside := sortUnderlay(seen.Stop())
	if overlay < 10 {
		t.Errorf("%d datagrams of the overlay: the capture shows nothing", overlay)
	}
	for what, n := range beside {
		t.Errorf("beside the tunnel, %d times: %s", n, what)
	}
}

// wantBeside ends a capture, and wants it to show packets to an address beside the overlay.
func (w *wayOut) wantBeside(t *testing.T, seen *lab.Capture, to string) {
	t.Helper()
	_, beside := sortUnderlay(seen.Stop())
	for what := range beside {
		if strings.HasSuffix(what, " to "+to) {
			return
		}
	}
	t.Errorf("nothing goes to %s beside the tunnel: the test shows nothing", to)
}

// sortUnderlay counts the datagrams of the overlay among the frames of a host's interfaces to the underlay, and those
// of anything else but what neighbours have to say to each other.
func sortUnderlay(frames []lab.Frame) (overlay int, beside map[string]int) {
	endpoints := []netip.AddrPort{netip.MustParseAddrPort(relayAt), netip.MustParseAddrPort(exitAt)}
	beside = make(map[string]int)
	for _, f := range frames {
		if f.Interface == "lo" || f.Interface == "adit0" {
			continue
		}
		switch p, ok := parseFrame(f.Data); {
		case !ok: // ARP
		case p.protocol == unix.IPPROTO_UDP && (slices.Contains(endpoints, p.from) || slices.Contains(endpoints, p.to)):
			overlay++
		case p.protocol == unix.IPPROTO_ICMPV6 && (p.to.Addr().IsLinkLocalMulticast() || p.from.Addr().IsLinkLocalUnicast() || p.neighbours):
		default:
			beside[fmt.Sprintf("protocol %d from %s to %s", p.protocol, p.from.Addr(), p.to.Addr())]++
		}
	}
	return overlay, beside
}

// framePacket is what a test reads of the IP packet in a frame.
type framePacket struct {
	protocol   byte
	from, to   netip.AddrPort // ports of UDP alone
	neighbours bool           // it is of neighbour discovery (RFC 4861)
}

func parseFrame(b []byte) (p framePacket, ok bool) {
	const ethernet = 14
	if len(b) < ethernet+20 {
		return p, false
	}
	kind, b := binary.BigEndian.Uint16(b[12:]), b[ethernet:]
	var from, to netip.Addr
	switch {
	case kind == unix.ETH_P_IP:
		p.protocol = b[9]
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		b = b[int(b[0]&15)*4:]
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		p.protocol = b[6]
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		if b = b[40:]; p.protocol == unix.IPPROTO_HOPOPTS && len(b) >= 8 {
			p.protocol, b = b[0], b[8:] // the router alert of multicast listeners
		}
	default:
		return p, false
	}
	var ports [2]uint16
	if p.protocol == unix.IPPROTO_UDP && len(b) >= 8 {
		ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
	p.neighbours = p.protocol == unix.IPPROTO_ICMPV6 && len(b) > 0 && b[0] >= 133 && b[0] <= 137
	p.from, p.to = netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
	return p, true
}

// TestOneFamilyBesideFullTunnelIsTold has a full tunnel of IPv4 alone on a host that has IPv6 too: that goes on beside it,
// as RFC 7359 warns of, and so does adit. With both families in the file there is nothing beside, even
// where the overlay has no IPv6.
func TestOneFamilyBesideFullTunnelIsTold(t *testing.T) {
	t.Parallel()
	w := newWayOut(t)
	half := w.startLaptop(anywhere4)
	if !strings.Contains(half.Output(), "IPv6 goes beside the tunnel") {
		t.Errorf("the log does not say that IPv6 goes beside the tunnel:\n%s", half.Output())
	}
	seen := w.laptopHost.Capture("any")
	w.disperse(t, site4, site6)
	w.wantBeside(t, seen, site6)
	half.end(t, 0)

	only4 := fmt.Sprintf("name: laptop\nprivate_key_file: own.key\naddresses: [%v/24]\nmode: tun\n%s\n%s\n", w.laptop.ip4, w.via,
		knows(entry(w.exit, exitAt, anywhere4, anywhere6), entry(w.other, "")))
	whole := w.start(w.laptopHost, asRoot, w.laptop.key, only4, "adit", "up")
	whole.ready()
	byRoute(w.laptopHost).awaitConversation(t, site4, soon)
	seen = w.laptopHost.Capture("any")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := w.laptopHost.DialContext(ctx, "tcp", net.JoinHostPort(site6, service.EchoPort)); err == nil {
		c.Close()
		t.Error("the site is reached by IPv6, which the overlay has not")
	}
	w.disperse(t, site6)
	byRoute(w.laptopHost).download(t, site4, 1e6)
	w.wantOnlyOverlay(t, seen)
}

// TestDocumentedRuleKeepsTrafficIn loads the rule of the documentation as it is written there, kills adit, and has a
// network push a route (CVE-2024-3661): traffic goes nowhere, until adit is back. Without the rule it would go out.
func TestDocumentedRuleKeepsTrafficIn(t *testing.T) {
	t.Parallel()
	lab.NeedCommand(t, "nft")
	w := newWayOut(t)
	from := byRoute(w.laptopHost)
	p := w.startLaptop(anywhere4, anywhere6)
	from.awaitConversation(t, site4, soon)

	pushed := &netlink.Route{Dst: &net.IPNet{IP: net.ParseIP(site4), Mask: net.CIDRMask(32, 32)}, Gw: net.ParseIP(homeGate)}
	change := func(do func(*netlink.Route) error) {
		w.laptopHost.Do(func() {
			if err := do(pushed); err != nil {
				t.Error(err)
			}
		})
	}
	push, pull := func() { change(netlink.RouteAdd) }, func() { change(netlink.RouteDel) }
	seen := w.laptopHost.Capture("any")
	push()
	w.disperse(t, site4)
	w.wantBeside(t, seen, site4) // a longer prefix wins, whoever has made it
	pull()

	w.laptopHost.Run("nft", "-f", w.documentedRule(t))
	seen = w.laptopHost.Capture("any")
	push()
	w.disperse(t, site4)
	pull()
	from.awaitConversation(t, site4, soon)
	w.useInternet(t)
	p.kill()
	w.disperse(t, site4, site6)
	p.again()
	p.ready()
	from.awaitConversation(t, site6, soon)
	w.useInternet(t)
	w.wantOnlyOverlay(t, seen)
}

// documentedRule is a file with the rule of docs/configuration.md.
func (w *wayOut) documentedRule(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```nft\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of nft rules, want one", len(blocks))
	}
	path := w.TempDir(lab.User{}) + "/rule.nft"
	w.write(lab.User{}, path, blocks[0][1])
	return path
}
