package peer_test

import (
	"testing"

	"github.com/adit-overlay/adit/peer"
)

// TestRelayNeedsNotThePresharedKeyOfPeers: what peers share protects them from their relay too, so they
// talk through one that does not have it.
func TestRelayNeedsNotThePresharedKeyOfPeers(t *testing.T) {
	l := newLab(t, onLoopback, "one", "two")
	with := func(c *peer.Config) { c.PresharedKey[0] = 7 }
	one, two := l.start("one", with), l.start("two", with)
	for _, p := range []*peer.Peer{one, two} {
		if err := p.Ready(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := two.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := one.DialContext(soon(t), "tcp", "two.adit:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
