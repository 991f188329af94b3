//go:build linux

package contestants

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

const (
	wireguardName = "wireguard-go"
	wireguardMTU  = 1420 // its default
	wireguardPort = 51820
)

// WireguardSockets is where the command wireguard-go is to have its sockets, within the directory of the
// programs: it is built with that in it, so that /run is left alone.
const WireguardSockets = "uapi"

// wireguard is wireguard-go: its command at a TUN end, and its netstack at the others, with
// armon/go-socks5 for the proxy.
func wireguard(endA, endB end) Contestant {
	return Contestant{Name: wireguardName, Foreign: true, up: func(s *Site) *Pair {
		a, b := s.direct()
		return s.wireguard(a, endA, b, endB)
	}}
}

var wireguardWired = Contestant{Name: wireguardName, Foreign: true, Extra: true, up: func(s *Site) *Pair {
	a, b, w := s.wired()
	p := s.wireguard(a, stackEnd, b, stackEnd)
	p.Wire = w
	return p
}}

func (s *Site) wireguard(a *lab.Host, endA end, b *lab.Host, endB end) *Pair {
	p := &Pair{IPv4: roster.IPv4(memberB).String(), IPv6: roster.IPv6(memberB).String()}
	toB := wireguardPeer(memberB, fmt.Sprintf("%s:%d", addrB, wireguardPort))
	fromAll := wireguardPeer(memberA, "")
	var join []string
	if endA == stackEnd {
		for i := range ColdMembers {
			fromAll += wireguardPeer(firstCold+i, "")
			s.wireguardFile(fmt.Sprintf("cold%d.json", i), firstCold+i, wireguardKey(firstCold+i)+toB)
		}
		join = []string{"-join", s.path("cold%d.json")}
	}
	var processA, processB *lab.Process
	p.B, processB = s.wireguardEnd(b, memberB, endB, fmt.Sprintf("%slisten_port=%d\n%s", wireguardKey(memberB), wireguardPort, fromAll))
	p.A, processA = s.wireguardEnd(a, memberA, endA, wireguardKey(memberA)+toB, join...)
	p.Ends = []*lab.Process{processA, processB}
	return p
}

// wireguardKey and wireguardPeer write what wireguard-go is told at its socket.
func wireguardKey(member int) string {
	k := roster.Key(member)
	return fmt.Sprintf("private_key=%s\n", hex.EncodeToString(k[:]))
}

func wireguardPeer(member int, endpoint string) string {
	k := roster.Key(member).Public()
	text := fmt.Sprintf("public_key=%s\n", hex.EncodeToString(k[:]))
	if endpoint != "" {
		text += fmt.Sprintf("endpoint=%s\n", endpoint)
	}
	return text + fmt.Sprintf("allowed_ip=%v/32\nallowed_ip=%v/128\n", roster.IPv4(member), roster.IPv6(member))
}

func (s *Site) wireguardFile(name string, member int, device string) string {
	b, err := json.Marshal(struct {
		Addresses []netip.Addr
		MTU       int
		Device    string
	}{[]netip.Addr{roster.IPv4(member), roster.IPv6(member)}, wireguardMTU, device})
	return s.file(name, string(must[[]byte](s)(b, err)))
}

func (s *Site) wireguardEnd(h *lab.Host, member int, e end, device string, join ...string) (*load.Controller, *lab.Process) {
	name := fmt.Sprintf("member%d.json", member)
	switch e {
	case tunEnd:
		tunnel := s.wireguardTUN(h, member, device)
		return s.sockets(h), tunnel
	case stackEnd:
		return s.agent(h, "wgstack", append(join, "-c", s.wireguardFile(name, member, device))...)
	default:
		tunnel := s.start(h, "wgstack", "-socks", proxyAt, "-c", s.wireguardFile(name, member, device))
		return s.sockets(h, "-socks", proxyAt), tunnel
	}
}

// wireguardTUN runs the command and configures it.
func (s *Site) wireguardTUN(h *lab.Host, member int, device string) *lab.Process {
	iface := fmt.Sprintf("wg%d", member)
	tunnel := s.start(h, "wireguard", "-f", iface)
	ctx, cancel := context.WithTimeout(s.T.Context(), patience)
	defer cancel()
	socket := filepath.Join(s.Programs, WireguardSockets, iface+".sock")
	for {
		err := wireguardSet(ctx, socket, device)
		if err == nil {
			break
		}
		select {
		case <-tunnel.Done():
			s.T.Fatalf("%s: wireguard-go ended; it wrote:\n%s", s.Name, tunnel.Output())
		case <-ctx.Done():
			s.T.Fatalf("%s: configuring wireguard-go: %v", s.Name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.raise(h, iface, netip.PrefixFrom(roster.IPv4(member), roster.Bits4), netip.PrefixFrom(roster.IPv6(member), roster.Bits6))
	return tunnel
}

// wireguardSet has the conversation at wireguard-go's socket.
func wireguardSet(ctx context.Context, socket, device string) error {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "set=1\n%s\n", device); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && strings.TrimSpace(answer) != "errno=0" {
		err = fmt.Errorf("wireguard-go said %q", answer)
	}
	return err
}
