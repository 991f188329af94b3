//go:build linux

package integration

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// A wayOut is a laptop at home, and a peer that is its exit to the internet. The exit hides the overlay behind its own
// addresses there. All of the underlay between them speaks IPv4 and IPv6.
type wayOut struct {
	*overlay
	home, cafe, office  *lab.Switch // the laptop is at home; the office has no NAT
	public              *lab.Switch
	laptopHost          *lab.Host
	exitHost            *lab.NAT
	otherHost           *lab.Host
	laptop, exit, other *member
	via                 string
}

const (
	site4, site6           = "198.51.100.9", "2001:db8:2::9" // on the internet: services, and a name server
	exit4, exit6           = "198.51.100.5", "2001:db8:2::5" // as the internet sees the exit
	exitAt                 = "203.0.113.5:5040"
	relayAt                = "203.0.113.1:" + relayPort
	anywhere4              = "0.0.0.0/0"
	anywhere6              = "::/0"
	homeGate, homeGate6    = "192.168.1.1", "fd01::1"
	homeAddr, homeAddr6    = "192.168.1.2/24", "fd01::2/64"
	cafeGate, cafeGate6    = "192.168.2.1", "fd02::1"
	cafeAddr, cafeAddr6    = "192.168.2.2/24", "fd02::2/64"
	officeGate, officeAddr = "192.0.2.1", "192.0.2.2/24"
	dnsPort                = "53"
)

// newWayOut starts all but the laptop.
func newWayOut(t *testing.T) *wayOut {
	w := &wayOut{overlay: newOverlay(t)}
	public, internet := w.Switch("public"), w.Switch("internet")
	w.public, w.home, w.cafe, w.office = public, w.Switch("home"), w.Switch("cafe"), w.Switch("office")
	w.Router("isp", lab.On(public, "203.0.113.30/24"), lab.On(w.office, officeGate+"/24"))
	toOffice := lab.Route("192.0.2.0/24", "203.0.113.30")
	relay := w.Host("relay", lab.On(public, "203.0.113.1/24", "2001:db8::1/64"), toOffice)
	w.NAT("nat at home", lab.On(public, "203.0.113.10/24", "2001:db8::10/64"), lab.On(w.home, homeGate+"/24", homeGate6+"/64"))
	w.NAT("nat at the cafe", lab.On(public, "203.0.113.20/24", "2001:db8::20/64"), lab.On(w.cafe, cafeGate+"/24", cafeGate6+"/64"))
	w.laptopHost = w.Host("laptop", lab.On(w.home, homeAddr, homeAddr6), lab.Gateway(homeGate, homeGate6))
	w.exitHost = w.NAT("exit", lab.On(internet, exit4+"/24", exit6+"/64"), lab.On(public, "203.0.113.5/24", "2001:db8::5/64"), toOffice)
	w.otherHost = w.Host("other", lab.On(public, "203.0.113.6/24", "2001:db8::6/64"))
	site := w.Host("site", lab.On(internet, site4+"/24", site6+"/64"))
	if err := service.Serve(hostNetwork{site}); err != nil {
		t.Fatal(err)
	}
	if err := service.Echo(hostNetwork{site}, dnsPort); err != nil {
		t.Fatal(err)
	}
	w.laptop, w.exit, w.other = w.member("laptop"), w.member("exit"), w.member("other")
	w.via = w.overlay.via(relayAt)
	w.relay(relay)
	w.tun(w.exitHost.Host, w.exit, `listen: ":5040"`, knows(entry(w.laptop, ""))).ready()
	w.box(w.otherHost, w.other, nil, w.via).ready()
	return w
}

// startLaptop has the laptop send these networks to the exit, and returns when it is ready.
func (w *wayOut) startLaptop(networks ...string) *program {
	w.t.Helper()
	p := w.upLaptop(networks...)
	p.ready()
	return p
}

// upLaptop is startLaptop without waiting.
func (w *wayOut) upLaptop(networks ...string) *program {
	w.t.Helper()
	return w.tun(w.laptopHost, w.laptop, w.via, knows(entry(w.exit, exitAt, networks...), entry(w.other, "")))
}

// TestAllTrafficThroughAnotherPeer sends everything into the overlay, but the overlay itself.
func TestAllTrafficThroughAnotherPeer(t *testing.T) {
	t.Parallel()
	w := newWayOut(t)
	from := byRoute(w.laptopHost)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := from.whoami(short, site4); err == nil {
		t.Fatal("the site can be reached without the overlay: the test shows nothing")
	}
	before := network(t, w.laptopHost)
	p := w.startLaptop(anywhere4, anywhere6)
	for site, want := range map[string]string{site4: exit4, site6: exit6} {
		from.awaitConversation(t, site, soon)
		who, err := from.whoami(t.Context(), site)
		if err != nil {
			t.Fatal(err)
		}
		if addr, err := netip.ParseAddrPort(who); err != nil || addr.Addr().String() != want {
			t.Errorf("the site was asked by %s, want %s: the exit", who, want)
		}
		from.download(t, site, 20e6)
		ping(t, w.laptopHost, site, 3)
	}
	// The rest of the overlay is there, by the relay, which the default route must not cover.
	from.awaitConversation(t, w.other.addr("IPv4"), soon)

	p.kill()
	p.again()
	p.ready()
	from.awaitConversation(t, site4, soon)
	p.end(t, 0)
	wantNetwork(t, w.laptopHost, before)
}

// TestFullTunnelFollowsExitThatMoves has the exit show itself at an address that no file knows: the host's datagrams to
// it must not be drawn into the tunnel.
func TestFullTunnelFollowsExitThatMoves(t *testing.T) {
	t.Parallel()
	w := newWayOut(t)
	w.laptopHost.Detach(w.home)
	w.laptopHost.Attach(w.office, officeAddr)
	w.laptopHost.SetGateway(officeGate)
	before := network(t, w.laptopHost)
	p := w.startLaptop(anywhere4, anywhere6)
	from := byRoute(w.laptopHost)
	talk := startTalk(t, from, site4)
	w.exitHost.ReplaceAddr(w.public, "203.0.113.5/24", "203.0.113.7/24")
	wantInTime(t, "full tunnel: the exit has another address", from.awaitFirst(t, site4, recoveryLimit), recoveryBound)
	talk.wantAnswer(t)
	talk.file.wantProgress(t, 1e6, recoveryLimit)
	talk.end(t)
	p.end(t, 0)
	wantNetwork(t, w.laptopHost, before)
}
