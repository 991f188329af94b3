//go:build linux

package integration

import (
	"testing"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// TestPeersThatKnowEachOther has two peers without a relay, started at once, of which one or both know where the
// other listens. Traffic goes from the first to the second, so where only the second knows, it must begin unasked.
func TestPeersThatKnowEachOther(t *testing.T) {
	const at1, at2 = "203.0.113.1:5040", "203.0.113.2:5040"
	for _, c := range []struct {
		name          string
		first, second string // the endpoint each knows of the other
	}{
		{name: "the first knows", first: at2},
		{name: "the second knows", second: at1},
		{name: "both know", first: at2, second: at1},
	} {
		t.Run("TUN/"+c.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t)
			d.tun(d.one, d.a, `listen: ":5040"`, knows(entry(d.b, c.first)))
			d.tun(d.two, d.b, `listen: ":5040"`, knows(entry(d.a, c.second))).says("msg=mode") // its addresses are there
			if err := service.Serve(hostNetwork{d.two}); err != nil {
				t.Fatal(err)
			}
			d.wantTraffic(t, byRoute(d.one))
			ping(t, d.one, d.b.addr("IPv4"), 3)
			ping(t, d.two, d.a.addr("IPv6"), 3)
		})
		t.Run("rootless/"+c.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t)
			d.rootless(d.one, d.a, `listen: ":5040"`, knows(entry(d.b, c.first)))
			d.box(d.two, d.b, nil, `listen: ":5040"`, knows(entry(d.a, c.second)))
			d.wantTraffic(t, bySOCKS(d.one))
		})
	}
}

// direct is two hosts on one segment, and nothing else.
type direct struct {
	*overlay
	one, two *lab.Host
	a, b     *member
}

func newDirect(t *testing.T) *direct {
	d := &direct{overlay: newOverlay(t)}
	public := d.Switch("public")
	d.one = d.Host("one", lab.On(public, "203.0.113.1/24"))
	d.two = d.Host("two", lab.On(public, "203.0.113.2/24"))
	d.a, d.b = d.member("a"), d.member("b")
	return d
}

func (d *direct) wantTraffic(t *testing.T, from access) {
	t.Helper()
	t.Logf("first conversation after %v", from.awaitConversation(t, d.b.addr("IPv4"), soon))
	from.download(t, d.b.addr("IPv4"), 10e6)
	from.converse(t, d.b.addr("IPv6"), 20)
}
