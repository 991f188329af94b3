//go:build linux

package integration

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// TestNetworkBehindRootlessPeer reaches a host that knows nothing of the overlay, through a peer in its network that
// is nobody there.
func TestNetworkBehindRootlessPeer(t *testing.T) {
	t.Parallel()
	const network, printer, other = "192.168.7.0/24", "192.168.7.9", "192.168.8.9"
	o := newOverlay(t)
	public, office, store := o.Switch("public"), o.Switch("office"), o.Switch("store")
	relay := o.Host("relay", lab.On(public, "203.0.113.1/24"))
	hostA := o.Host("a", lab.On(public, "203.0.113.2/24"))
	hostC := o.Host("c", lab.On(public, "203.0.113.4/24"))
	gateway := o.Host("gateway", lab.On(public, "203.0.113.3/24"), lab.On(office, "192.168.7.2/24"), lab.On(store, "192.168.8.2/24"))
	// Where the kernel lets everybody send echo requests, the peer there does it for others.
	gateway.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
	// Neither has a gateway: they answer their neighbours alone.
	inside := o.Host("printer", lab.On(office, printer+"/24"))
	beside := o.Host("other", lab.On(store, other+"/24"))
	for _, h := range []*lab.Host{inside, beside} {
		if err := service.Serve(hostNetwork{h}); err != nil {
			t.Fatal(err)
		}
	}
	laptop, desk := o.member("laptop"), o.member("desk")
	door := o.member("door", network)
	via := o.via("203.0.113.1:" + relayPort)
	o.relay(relay)
	advertise := "advertise: " + list([]string{network})
	for _, p := range []*program{
		o.rootless(hostA, laptop, via),
		// This one would like to have more than is advertised, and sends it there.
		o.tun(hostC, desk, via, knows(entry(door, "", network, "192.168.8.0/24"))),
		o.rootless(gateway, door, via, advertise),
	} {
		p.ready()
	}
	if resp, err := byRoute(gateway).get(t.Context(), other, "/whoami"); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the gateway's host itself does not reach %s: %v", other, err)
	}

	for _, c := range []struct {
		name string
		from access
		host *lab.Host
	}{{"from a rootless peer", bySOCKS(hostA), nil}, {"from a TUN peer", byRoute(hostC), hostC}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			c.from.awaitConversation(t, printer, soon)
			c.from.download(t, printer, 20e6)
			who, err := c.from.whoami(ctx, printer)
			if err != nil || !strings.HasPrefix(who, "192.168.7.2:") {
				t.Errorf("the server was asked by %s (%v), want the gateway's own address 192.168.7.2", who, err)
			}
			if c.host != nil {
				echoUDP(t, c.host, printer+":"+service.EchoPort)
				ping(t, c.host, printer, 3)
			}

			_, err = c.from(ctx, "tcp", printer+":81")
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a closed port: error %v, want connection refused", err)
			}
			short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if conn, err := c.from(short, "tcp", other+":80"); err == nil {
				conn.Close()
				t.Errorf("%s can be reached, and is not advertised", other)
			} else {
				t.Logf("an address that is not advertised: %v", err)
			}
		})
	}
}
