package peer

import (
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/internal/citest"
)

func TestMTUWithin(t *testing.T) {
	for link, want := range map[int]int{
		1500: 1400, // as it always was
		1492: 1400, 1450: 1358, 1372: 1280, 1300: 1280, 576: 1280,
		4352: 4200, 9000: 8900, 9216: mostAutoMTU, 65536: mostAutoMTU, 1 << 20: mostAutoMTU,
	} {
		if got := mtuWithin(link); got != want {
			t.Errorf("links of %d bytes: %d, want %d", link, got, want)
		}
	}
}

// Loopback is the one network every machine has. It carries some 64 KB unless somebody changed that.
func TestOverlayMTU(t *testing.T) {
	lo := mtuWithin(65536)
	if n := routeMTU(netip.MustParseAddrPort("127.0.0.1:5040")); n < mostAutoMTU+underlayOverhead {
		citest.Skipf(t, "loopback carries no more than %d bytes", n)
	}
	anywhere, _ := chooseMTU(0, ":5040", nil)
	for _, c := range []struct {
		name       string
		configured int
		listen     string
		endpoints  []string
		want       int
	}{
		{"configured", 1234, "127.0.0.1:0", []string{"127.0.0.1:5040"}, 1234},
		{"without UDP", 0, "", []string{"127.0.0.1:5040"}, config.DefaultMTU},
		{"an endpoint", 0, ":0", []string{"127.0.0.1:5040"}, lo},
		{"an IPv6 endpoint", 0, ":0", []string{"[::1]:5040"}, lo},
		{"the widest of two", 0, ":0", []string{"192.0.2.1:5040", "127.0.0.1:5040"}, lo},
		{"only listening", 0, "127.0.0.1:5040", nil, lo},
		{"only listening, another address", 0, "127.9.9.9:5040", nil, lo},
		{"only listening, IPv6", 0, "[::1]:5040", nil, lo},
		{"an address that is no interface's", 0, "203.0.113.77:5040", nil, config.DefaultMTU},
		{"a name", 0, ":5040", []string{"relay.example.com:5040"}, anywhere},
		{"what is no endpoint", 0, ":5040", []string{"nonsense"}, anywhere},
	} {
		if got, why := chooseMTU(c.configured, c.listen, c.endpoints); got != c.want || why == "" {
			t.Errorf("%s: %d because %q, want %d", c.name, got, why, c.want)
		}
	}
	if n, name := interfaceMTU(":5040"); n == 65536 {
		t.Errorf("a peer that listens everywhere has %s to listen at, as if loopback led out", name)
	}
}
