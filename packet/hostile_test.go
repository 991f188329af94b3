package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/adit-overlay/adit/packet/packettest"
)

var hostile = packettest.Addresses{
	From4: netip.MustParseAddr("10.9.0.2"), To4: netip.MustParseAddr("10.9.0.1"),
	From6: netip.MustParseAddr("fd00:9::2"), To6: netip.MustParseAddr("fd00:9::1"),
}

func TestParseRefusesMalformedHeaders(t *testing.T) {
	for _, p := range hostile.Malformed() {
		if h, err := Parse(p.Bytes); err == nil {
			t.Errorf("%s: parsed as %+v", p.Name, h)
		}
	}
	for _, p := range hostile.Odd() {
		h, err := Parse(p.Bytes)
		if err != nil || h.Transport > len(p.Bytes) {
			t.Errorf("%s: %+v, %v; its header is in order", p.Name, h, err)
			continue
		}
		if at, ok := h.ChecksumOffset(len(p.Bytes)); ok && at+2 > len(p.Bytes) {
			t.Errorf("%s: checksum at %d of %d", p.Name, at, len(p.Bytes))
		}
		Verify(p.Bytes, &h)
	}
}

func TestClampMSSLeavesHostilePacketsAlone(t *testing.T) {
	for _, p := range hostile.All() {
		for n := range len(p.Bytes) + 1 { // and each as far as it goes
			b := bytes.Clone(p.Bytes[:n:n])
			ClampMSS(b, 600, false)
			if !bytes.Equal(b, p.Bytes[:n]) {
				t.Errorf("%s, %d bytes of it: changed", p.Name, n)
			}
		}
	}
}

// TestCoalescerDeliversHostilePacketsAsTheyAre: a run of segments before and after each is not joined with it.
func TestCoalescerDeliversHostilePacketsAsTheyAre(t *testing.T) {
	for _, p := range hostile.Odd() {
		for _, partial := range []bool{false, true} {
			rec := &recorder{}
			c := NewCoalescer(rec, nil)
			run := segment{flags: tcpACK, payload: make([]byte, 3000)}.cut(1000)
			for _, s := range run {
				feed(c, s.bytes(true), true, 60000)
			}
			taken := feed(c, p.Bytes, partial, 60000)
			for _, s := range run {
				feed(c, s.bytes(true), true, 60000)
			}
			c.Flush()
			want := 2
			if taken {
				want++
				if !bytes.Equal(rec.got[1].Pieces[0], p.Bytes) {
					t.Errorf("%s: delivered as %x", p.Name, rec.got[1].Pieces[0])
				}
			}
			if len(rec.got) != want {
				t.Errorf("%s: %d packets delivered, want %d", p.Name, len(rec.got), want)
			}
		}
	}
}

// TestCutterEndsWhateverItIsGiven: hostile packets with every offload that may be said of them are refused, or cut into segments that
// hold what there was and no more.
func TestCutterEndsWhateverItIsGiven(t *testing.T) {
	numbers := []int{-1, 0, 1, 19, 20, 39, 40, 41, 60, 80, 65535, 1 << 40}
	dst := make([]byte, 1<<17)
	cut := 0
	for _, p := range hostile.All() {
		for _, header := range numbers {
			for _, transport := range numbers {
				for _, seg := range numbers {
					for _, sum := range []Checksum{ChecksumComplete, ChecksumPartial} {
						for _, bound := range []int{0, 1, 50, 1400} {
							pkt := &Packet{Pieces: [][]byte{p.Bytes}, Offload: Offload{Checksum: sum, Header: header, Transport: transport, Segment: seg}}
							var c Cutter
							if c.Start(pkt, true) != nil {
								continue
							}
							if bound > 0 {
								c.Bound(pkt, bound)
							}
							cut++
							n, bytes := c.Segments(), 0
							if n < 1 || n > len(p.Bytes) {
								t.Fatalf("%s, %+v: %d segments", p.Name, pkt.Offload, n)
							}
							for range n {
								size := c.Size()
								if size < 1 || size > len(p.Bytes) {
									t.Fatalf("%s, %+v: segment of %d bytes", p.Name, pkt.Offload, size)
								}
								bytes += size - len(c.hdr)
								c.Next(dst[:size])
							}
							if c.Size() != 0 || bytes+len(c.hdr) != len(p.Bytes) {
								t.Fatalf("%s, %+v: %d bytes of %d", p.Name, pkt.Offload, bytes+len(c.hdr), len(p.Bytes))
							}
						}
					}
				}
			}
		}
	}
	if cut == 0 {
		t.Error("nothing was ever cut")
	}
}

func TestErrorsQuoteHostilePacketsWithinBounds(t *testing.T) {
	for _, p := range hostile.Odd() {
		h, err := Parse(p.Bytes)
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		for _, msg := range [][]byte{
			AppendUnreachable(nil, p.Bytes, &h, HostDown, h.Dst), AppendTooBig(nil, p.Bytes, &h, 1300, h.Dst),
		} {
			if len(msg) == 0 {
				continue // an ICMP error is not answered
			}
			if _, err := Parse(msg); err != nil || len(msg) > 1280 {
				t.Errorf("%s: answered with %d bytes, %v", p.Name, len(msg), err)
			}
		}
	}
}
