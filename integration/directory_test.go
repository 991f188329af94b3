//go:build linux

package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
)

// TestRelayIsAllAPeerKnows has peers with nothing but the relay in their files.
func TestRelayIsAllAPeerKnows(t *testing.T) {
	t.Parallel()
	o, relay, hosts := segment(t, "a", "b", "c")
	hostA, hostB, hostC := hosts[0], hosts[1], hosts[2]
	laptop, web, store, server := o.member("laptop"), o.member("web"), o.member("store"), o.member("server")
	absent := o.member("absent")
	via := o.viaSegment()

	o.relay(relay)
	for _, p := range []*program{
		o.rootless(hostA, laptop, via),
		o.box(hostB, web, nil, via),
		o.box(hostB, store, nil, via),
		o.tun(hostC, server, via),
	} {
		p.ready()
	}
	if err := service.Serve(hostNetwork{hostC}); err != nil {
		t.Fatal(err)
	}
	from := bySOCKS(hostA)
	for _, m := range []*member{web, store, server} {
		for _, host := range []string{m.name + ".adit", m.addr("IPv4"), m.addr("IPv6"), m.name + ".adit"} {
			start := time.Now()
			from.download(t, host, 1e6)
			t.Logf("%s: %v", host, time.Since(start).Round(time.Millisecond))
		}
	}

	// What cannot be reached is said so, and soon enough for a person to wait.
	for _, c := range []struct{ what, host, want string }{
		{"a name nobody has", "nobody.adit", "host unreachable"},
		{"an address nobody has", "10.9.0.99", "network unreachable"},
		{"a member that is not there", absent.addr("IPv4"), "host unreachable"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		start := time.Now()
		err := from.conversation(ctx, c.host, []byte("hello"))
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, after %v: error %v, want one about %q", c.what, time.Since(start), err, c.want)
		}
		t.Logf("%s: %v, after %v", c.what, err, time.Since(start).Round(time.Millisecond))
	}
}
