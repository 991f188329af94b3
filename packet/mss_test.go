package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// syn is a TCP packet with these options, padded to whole words, and its checksum.
func syn(v6 bool, flags byte, partial bool, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, tcpOptionEnd)
	}
	b := segment{v6: v6, seq: 0xfffefdfc, flags: flags, options: len(options)}.bytes(partial)
	copy(b[len(b)-len(options):], options)
	if !partial {
		slowTCP(b)
	}
	return b
}

// slowTCP computes the TCP checksum of a packet that segment made, over everything.
func slowTCP(b []byte) {
	ip, addrs := IPv4HeaderLen, b[12:20]
	if b[0]>>4 == 6 {
		ip, addrs = IPv6HeaderLen, b[8:40]
	}
	t := b[ip:]
	t[tcpChecksum], t[tcpChecksum+1] = 0, 0
	pseudo := append(bytes.Clone(addrs), 0, ProtoTCP, byte(len(t)>>8), byte(len(t)))
	binary.BigEndian.PutUint16(t[tcpChecksum:], ^slowSum(t, slowSum(pseudo, 0)))
}

// mss is an MSS option.
func mss(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }

func TestClampMSS(t *testing.T) {
	const nop, end = tcpOptionNop, tcpOptionEnd
	timestamps := []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct {
		name          string
		before, after []byte // options; the packets are to be at most 1300 bytes by IPv4, 1320 by IPv6
	}{
		{"alone", mss(1460), mss(1260)},
		{"the greatest", mss(65535), mss(1260)},
		{"just too large", mss(1261), mss(1260)},
		{"just right", mss(1260), mss(1260)},
		{"small enough", mss(536), mss(536)},
		{"zero", mss(0), mss(0)},
		{"as Linux sends it", slices.Concat(mss(1460), []byte{4, 2}, timestamps, []byte{nop, 3, 3, 7}), slices.Concat(mss(1260), []byte{4, 2}, timestamps, []byte{nop, 3, 3, 7})},
		{"at an odd place", slices.Concat([]byte{nop}, mss(1460)), slices.Concat([]byte{nop}, mss(1260))},
		{"behind three", slices.Concat([]byte{nop, nop, nop}, mss(8960), []byte{3, 3, 7}), slices.Concat([]byte{nop, nop, nop}, mss(1260), []byte{3, 3, 7})},
		{"behind options unknown", slices.Concat([]byte{254, 5, 1, 2, 3}, mss(1460)), slices.Concat([]byte{254, 5, 1, 2, 3}, mss(1260))},
		{"twice", slices.Concat(mss(1460), mss(9000)), slices.Concat(mss(1260), mss(1260))},
		{"the last", slices.Concat(bytes.Repeat([]byte{nop}, 36), mss(1460)), slices.Concat(bytes.Repeat([]byte{nop}, 36), mss(1260))},
		{"behind the end", slices.Concat([]byte{end, nop, nop, nop}, mss(1460)), slices.Concat([]byte{end, nop, nop, nop}, mss(1460))},
		{"none", nil, nil},
		{"of length 3", []byte{2, 3, 5, 180}, []byte{2, 3, 5, 180}},
		{"of length 6", []byte{2, 6, 5, 180, 5, 180}, []byte{2, 6, 5, 180, 5, 180}},
		{"of length 0", slices.Concat([]byte{2, 0, 5, 180}, mss(1460)), slices.Concat([]byte{2, 0, 5, 180}, mss(1460))},
		{"behind an option of length 1", slices.Concat([]byte{3, 1}, mss(1460)), slices.Concat([]byte{3, 1}, mss(1460))},
		{"cut off", []byte{nop, nop, 2, 4}, []byte{nop, nop, 2, 4}},
		{"a kind without length", []byte{nop, nop, nop, 2}, []byte{nop, nop, nop, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v6 := range []bool{false, true} {
				limit := 1300
				if v6 {
					limit = 1320
				}
				for _, flags := range []byte{tcpSYN, tcpSYN | tcpACK, tcpSYN | tcpCWR} {
					for _, partial := range []bool{false, true} {
						b := syn(v6, flags, partial, c.before...)
						ClampMSS(b, limit, partial)
						if want := syn(v6, flags, partial, c.after...); !bytes.Equal(b, want) {
							t.Errorf("IPv6 %v flags %#x partial %v:\n got %x\nwant %x", v6, flags, partial, b, want)
						}
					}
				}
			}
		})
	}
}

func TestClampMSSLeavesOtherPackets(t *testing.T) {
	v4 := func() []byte { return syn(false, tcpSYN, false, mss(1460)...) }
	v6 := func() []byte { return syn(true, tcpSYN, false, mss(1460)...) }
	with := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	for name, b := range map[string][]byte{
		"ACK":                     syn(false, tcpACK, false, mss(1460)...),
		"SYN and RST":             syn(false, tcpSYN|tcpRST, false, mss(1460)...),
		"UDP":                     with(v4(), 9, ProtoUDP),
		"UDP, IPv6":               with(v6(), 6, ProtoUDP),
		"an extension header":     with(v6(), 6, 0),
		"a later fragment":        with(v4(), 7, 1),
		"a first fragment":        with(v4(), 6, 0x20),
		"version 5":               with(v4(), 0, 0x55),
		"IPv4 header of 16":       with(v4(), 0, 0x44),
		"IPv4 header of 60":       with(v4(), 0, 0x4f),
		"TCP header of 16":        with(v4(), 32, 0x40),
		"TCP header of 60":        with(v4(), 32, 0xf0),
		"options cut off":         v4()[:42],
		"IPv6, options cut off":   v6()[:62],
		"IPv6, TCP header cut of": v6()[:50],
		"short":                   {0x45},
		"empty":                   {},
	} {
		before := bytes.Clone(b)
		ClampMSS(b, 1300, false)
		if !bytes.Equal(b, before) {
			t.Errorf("%s: changed", name)
		}
	}
	for _, n := range []int{-1, 0, 40} { // no segment would fit
		b := v4()
		ClampMSS(b, n, false)
		if !bytes.Equal(b, v4()) {
			t.Errorf("bound %d: changed", n)
		}
	}
}

// IPv4 options move everything behind them.
func TestClampMSSBehindIPv4Options(t *testing.T) {
	b := syn(false, tcpSYN, false, append([]byte{tcpOptionNop}, mss(1460)...)...)
	b = slices.Insert(b, IPv4HeaderLen, 1, 1, 1, 1)
	b[0] = 0x46
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	h, err := Parse(b)
	if err != nil || !Verify(b, &h) {
		t.Fatalf("%v, or the test's packet is wrong", err)
	}
	ClampMSS(b, 1300, false)
	if got := binary.BigEndian.Uint16(b[24+20+3:]); got != 1260 || !Verify(b, &h) {
		t.Errorf("MSS %d, checksum right: %v", got, Verify(b, &h))
	}
}

// Every 16-bit change there can be of the sum is worth a look: the corners are where it is zero.
func TestClampMSSKeepsTheChecksumRight(t *testing.T) {
	for port := range 1 << 16 {
		b := syn(false, tcpSYN, false, append([]byte{tcpOptionNop}, mss(1460)...)...)
		binary.BigEndian.PutUint16(b[IPv4HeaderLen:], uint16(port))
		slowTCP(b)
		ClampMSS(b, 1300, false)
		want := bytes.Clone(b)
		slowTCP(want)
		if h, _ := Parse(b); !Verify(b, &h) {
			t.Fatalf("port %d: checksum %x, want %x", port, b[36:38], want[36:38])
		}
	}
}

func FuzzClampMSS(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(syn(v6, tcpSYN, false, mss(1460)...), uint16(1300))
		f.Add(syn(v6, tcpSYN|tcpACK, true, append([]byte{1}, mss(1460)...)...), uint16(1300))
		f.Add(syn(v6, tcpSYN, false, 2, 0, 5, 180), uint16(600))
		f.Add(syn(v6, tcpSYN, false, 254, 200, 5, 180), uint16(600))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		h, err := Parse(b)
		right := err == nil && Verify(b, &h)
		for _, partial := range []bool{false, true} {
			got := bytes.Clone(b)
			ClampMSS(got, int(n), partial)
			again := bytes.Clone(got)
			ClampMSS(again, int(n), partial)
			if !bytes.Equal(again, got) {
				t.Fatal("a second time changes it again")
			}
			if right && !partial && !Verify(got, &h) {
				t.Fatalf("the checksum of %x, bound %d, is wrong: %x", b, n, got)
			}
			var changed []int
			for i := range got {
				if got[i] != b[i] {
					changed = append(changed, i)
				}
			}
			if len(changed) > 0 && changed[0] < IPv4HeaderLen+tcpChecksum {
				t.Fatal(fmt.Sprint("bytes changed: ", changed))
			}
		}
	})
}

func BenchmarkClampMSS(b *testing.B) {
	for name, flags := range map[string]byte{"SYN": tcpSYN, "ACK": tcpACK} {
		b.Run(name, func(b *testing.B) {
			p := syn(false, flags, false, mss(1460)...)
			b.ReportAllocs()
			for b.Loop() {
				ClampMSS(p, 1300, false)
			}
		})
	}
}
