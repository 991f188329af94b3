package tun

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/packet/packettest"
)

var hostile = packettest.Addresses{
	From4: netip.MustParseAddr("10.9.0.2"), To4: netip.MustParseAddr("10.9.0.1"),
	From6: netip.MustParseAddr("fd00:9::2"), To6: netip.MustParseAddr("fd00:9::1"),
}

// TestFramesThatLieAboutHostilePacketsAreRefusedOrSound: whatever the header of a frame says of a hostile packet, segmentation by nothing among
// it, no packet comes of it whose offload does not fit, and none that is larger than what came.
func TestFramesThatLieAboutHostilePacketsAreRefusedOrSound(t *testing.T) {
	positions := []uint16{0, 1, 20, 40, 48, 65535}
	refused, taken := 0, 0
	for _, p := range hostile.All() {
		for _, flags := range []uint8{0, needsChecksum, dataValid, needsChecksum | dataValid, 0xff} {
			for _, gso := range []uint8{gsoNone, gsoTCPv4, gsoTCPv6, gsoTCPv4 | gsoECN, 3, 5, 0xff} {
				for _, size := range []uint16{0, 1, 1400, 65535} {
					for _, start := range positions {
						for _, offset := range []uint16{0, udpChecksum, tcpChecksum, 65535} {
							h := virtioHeader{flags: flags, gsoType: gso, headerLen: start + 20, gsoSize: size, checksumStart: start, checksumOffset: offset}
							frame := append(make([]byte, virtioLen), p.Bytes...)
							h.put(frame)
							var b packet.Batch
							if err := add(&b, frame); err != nil {
								refused++
								if len(b.Packets) > 0 {
									t.Fatalf("%s, %+v: %v, and %d packets", p.Name, h, err, len(b.Packets))
								}
								continue
							}
							taken++
							if gso != gsoNone && size == 0 {
								t.Fatalf("%s: segmentation by nothing was taken", p.Name)
							}
							for i := range b.Packets {
								q := &b.Packets[i]
								if q.Len() > len(p.Bytes) || q.Super() && (q.Header > q.Len() || q.Segment < 1) {
									t.Fatalf("%s, %+v: %+v of %d bytes", p.Name, h, q.Offload, q.Len())
								}
								if q.Checksum == packet.ChecksumPartial {
									if _, err := encode(bytes.Join(q.Pieces, nil), q.Offload); err != nil {
										t.Fatalf("%s, %+v: %+v: %v", p.Name, h, q.Offload, err)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	if refused == 0 || taken == 0 {
		t.Errorf("%d frames refused, %d taken: want some of each", refused, taken)
	}
}

// TestMalformedPacketsAreNoSuperPackets: nor are packets whose checksum is to be completed beyond their end.
func TestMalformedPacketsAreNoSuperPackets(t *testing.T) {
	for _, p := range hostile.Malformed() {
		for _, gso := range []uint8{gsoTCPv4, gsoTCPv6} {
			for _, start := range []uint16{20, 40} {
				h := virtioHeader{flags: needsChecksum, gsoType: gso, headerLen: start + 20, gsoSize: 1, checksumStart: start, checksumOffset: tcpChecksum}
				if o, err := decode(h, bytes.Clone(p.Bytes)); err == nil {
					t.Errorf("%s was taken as %+v", p.Name, o)
				}
			}
		}
	}
}
