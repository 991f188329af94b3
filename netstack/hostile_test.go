package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/packet/packettest"
)

// TestHostilePacketsAreDroppedAndTheNextArrives: each malformed packet is refused and counted, none that is odd reaches a socket or
// hangs the stack, whatever is said of its checksum, and whether it is for the peer or a network behind it.
func TestHostilePacketsAreDroppedAndTheNextArrives(t *testing.T) {
	s := newStack(t, func(c *Config) {
		c.Advertise = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
		c.Host = refusingHost
	})
	go func() {
		var batch packet.Batch
		for s.Read(&batch) == nil {
		}
	}()
	server := listenPacket(t, s, "udp", ":53")
	from, to := netip.MustParseAddrPort(addrB+":1000"), netip.MustParseAddrPort(addrA+":53")
	for _, where := range []packettest.Addresses{
		{From4: netip.MustParseAddr(addrB), To4: netip.MustParseAddr(addrA), From6: netip.MustParseAddr(addrB6), To6: netip.MustParseAddr(addrA6)},
		{From4: netip.MustParseAddr(addrB), To4: netip.MustParseAddr("192.0.2.9"), From6: netip.MustParseAddr(addrB6), To6: netip.MustParseAddr("2001:db8::9")},
	} {
		malformed := make(map[string]bool)
		for _, p := range where.Malformed() {
			malformed[p.Name] = true
		}
		for _, p := range where.All() {
			for _, o := range []packet.Offload{
				{}, {Checksum: packet.ChecksumPartial, Transport: 20}, {Checksum: packet.ChecksumVerified},
				{Checksum: packet.ChecksumPartial, Transport: 40, Header: 60, Segment: 1},
			} {
				counted := s.Stats().Malformed
				err := deliver(t, s, bytes.Clone(p.Bytes), o)
				if malformed[p.Name] && (err == nil || s.Stats().Malformed != counted+1) {
					t.Errorf("%s, %+v: %v, and %d counted", p.Name, o, err, s.Stats().Malformed-counted)
				}
				// Delivery of UDP is done when Deliver returns: what passed is there before this.
				if err := deliver(t, s, udpPacket(from, to, []byte(p.Name)), packet.Offload{}); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 1<<16)
				n, _, err := server.ReadFrom(b)
				if err != nil || string(b[:n]) != p.Name {
					t.Fatalf("%s, %+v: a socket received %x, %v", p.Name, o, b[:n], err)
				}
			}
		}
	}
}
