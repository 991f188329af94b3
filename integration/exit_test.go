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

// TestAllTrafficThroughAnotherPeer sends everything into the overlay, but the overlay itself.
func TestAllTrafficThroughAnotherPeer(t *testing.T) {
	t.Parallel()
	o := newOverlay(t)
	public, home, internet := o.Switch("public"), o.Switch("home"), o.Switch("internet")
	relay := o.Host("relay", lab.On(public, "203.0.113.1/24"))
	o.NAT("nat", lab.On(public, "203.0.113.10/24"), lab.On(home, "192.168.1.1/24"))
	laptopHost := o.Host("laptop", lab.On(home, "192.168.1.2/24"), lab.Gateway("192.168.1.1"))
	// The exit hides the overlay behind its address on the internet, which laptop cannot reach otherwise.
	exitHost := o.NAT("exit", lab.On(internet, "198.51.100.5/24", "2001:db8:2::5/64"), lab.On(public, "203.0.113.5/24"))
	site := o.Host("site", lab.On(internet, "198.51.100.9/24", "2001:db8:2::9/64"))
	if err := service.Serve(hostNetwork{site}); err != nil {
		t.Fatal(err)
	}
	laptop, exit, other := o.member("laptop"), o.member("exit"), o.member("other")
	via := o.via("203.0.113.1:" + relayPort)
	o.relay(relay)
	o.tun(exitHost.Host, exit, `listen: ":5040"`, knows(entry(laptop, ""))).ready()
	otherHost := o.Host("other", lab.On(public, "203.0.113.6/24"))
	o.box(otherHost, other, nil, via).ready()

	from := byRoute(laptopHost)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := from.whoami(short, "198.51.100.9"); err == nil {
		t.Fatal("the site can be reached without the overlay: the test shows nothing")
	}
	before := network(t, laptopHost)
	p := o.tun(laptopHost, laptop, via, knows(
		entry(exit, "203.0.113.5:5040", "0.0.0.0/0", "::/0"), entry(other, "")))
	p.ready()
	for site, want := range map[string]string{"198.51.100.9": "198.51.100.5", "2001:db8:2::9": "2001:db8:2::5"} {
		from.awaitConversation(t, site, soon)
		who, err := from.whoami(t.Context(), site)
		if err != nil {
			t.Fatal(err)
		}
		if addr, err := netip.ParseAddrPort(who); err != nil || addr.Addr().String() != want {
			t.Errorf("the site was asked by %s, want %s: the exit", who, want)
		}
		from.download(t, site, 20e6)
		ping(t, laptopHost, site, 3)
	}
	// The rest of the overlay is there, by the relay, which the default route must not cover.
	from.awaitConversation(t, other.addr("IPv4"), soon)

	p.kill()
	p.again()
	p.ready()
	from.awaitConversation(t, "198.51.100.9", soon)
	p.end(t, 0)
	wantNetwork(t, laptopHost, before)
}
