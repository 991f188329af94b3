//go:build linux

package integration

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
)

// TestRelayIsLostBesideDirectPath kills the relay of two peers that know where the other is, and starts it again later.
// What flows between them does not go by it, and not one packet is lost.
func TestRelayIsLostBesideDirectPath(t *testing.T) {
	t.Parallel()
	o, relayHost, hosts := segment(t, "a", "b")
	hostA, hostB := hosts[0], hosts[1]
	desk, web := o.member("desk"), o.member("web")
	via, listen := o.viaSegment(), `listen: ":5040"`
	relay := o.relay(relayHost)
	a := o.tun(hostA, desk, via, listen, knows(entry(web, "203.0.113.3:5040")))
	b := o.box(hostB, web, nil, via, listen, knows(entry(desk, "203.0.113.2:5040")))
	a.ready()
	b.ready()
	from := byRoute(hostA)
	from.awaitConversation(t, web.addr("IPv4"), soon)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	file := from.follow(ctx, t, web.addr("IPv6"))
	stream := startDatagrams(t, hostA, net.JoinHostPort(web.addr("IPv4"), service.EchoPort))

	file.wantProgress(t, 1e6, soon)
	relay.kill()
	flows := func(when string) {
		start := time.Now()
		file.wantProgress(t, 1e6, soon)
		wantInTime(t, "a connection that goes directly "+when, time.Since(start), recoveryBound)
	}
	time.Sleep(8 * time.Second) // the outage: after five seconds a remote is given up
	flows("while the relay is away")
	relay.again()
	relay.ready()
	for _, m := range []*member{desk, web} {
		relay.says("msg=session remote=" + m.name + " ")
	}
	flows("when it is back")

	sent, lost := stream.end()
	wantNoneLost(t, sent, lost)
	stop()
	if err := file.fault(); err != nil {
		t.Error(err)
	}
	t.Logf("%d datagrams there and back, %d MB by TCP", sent, file.received()/1e6)
}
