package engine

import (
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/packet"
)

// A message from an address of its own is what a device, and a kernel behind one, drops as forged.
func TestRefusalsComeFromWhereThePacketWent(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a := l.node("a")
		nobody := netip.MustParseAddr("10.9.0.99")
		a.dev.in <- udpPacket(a.ip, nobody, "is anybody there?")
		if n := a.drops(DropNoRoute); n != 1 {
			t.Fatalf("%d packets had no route, want 1", n)
		}
		got := a.dev.take()
		if len(got) != 1 {
			t.Fatalf("the device was given %d packets, want 1", len(got))
		}
		h, err := packet.Parse(got[0].Pieces[0])
		if err != nil || h.Proto != packet.ProtoICMP || h.Src != nobody || h.Dst != a.ip {
			t.Errorf("the device was told by %+v (%v), want ICMP from %v to %v", h, err, nobody, a.ip)
		}
	})
}
