package peer_test

import (
	"errors"
	"net"
	"testing"

	"github.com/adit-overlay/adit/peer"
)

// TestRelayNeedsNotThePresharedKeyOfPeers: what peers share protects them from their relay too, so they
// talk through one that does not have it; and one of them that does not have it is shut out.
func TestRelayNeedsNotThePresharedKeyOfPeers(t *testing.T) {
	l := newLab(t, onLoopback, "one", "two", "out")
	with := func(c *peer.Config) { c.PresharedKey[0] = 7 }
	one, two, out := l.start("one", with), l.start("two", with), l.start("out")
	for _, p := range []*peer.Peer{one, two, out} {
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
	c, err = out.DialContext(soon(t), "tcp", "two.adit:80")
	if err == nil {
		c.Close()
		t.Fatal("a peer without the pre-shared key got in")
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("the error is %v, want a *net.OpError", err)
	}
}
