package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fullMember is the longest member there can be.
func fullMember(t testing.TB) Member {
	m := Member{
		Key:      newTestLocal(t, 1).Public(),
		Name:     strings.Repeat("n", MaxName),
		Online:   true,
		Observed: there,
	}
	for i := range MaxPrefixes {
		m.Prefixes = append(m.Prefixes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}), 128))
	}
	return m
}

func smallMember(t testing.TB) Member {
	return Member{
		Key:      newTestLocal(t, 2).Public(),
		Name:     "web-1",
		Observed: here,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32"), netip.MustParsePrefix("fd00:9::/64"), netip.MustParsePrefix("0.0.0.0/0")},
	}
}

// controls holds every message, by a name for vectors.
func controls(t testing.TB) map[string]Control {
	key := newTestLocal(t, 3).Public()
	token := Token{1, 2, 3, 4, 5, 6, 7, 8}
	return map[string]Control{
		"probe":                            Probe{Token: token},
		"probe, padded by a byte":          Probe{token, 1},
		"probe, padded":                    Probe{token, 100},
		"probe reply, IPv4":                ProbeReply{token, here},
		"probe reply, IPv6":                ProbeReply{token, there},
		"probe reply, address unknown":     ProbeReply{token, netip.AddrPort{}},
		"lookup by IPv4 address":           Lookup{ID: 9, By: ByAddress, Address: netip.MustParseAddr("10.9.0.3")},
		"lookup by IPv6 address":           Lookup{ID: 9, By: ByAddress, Address: netip.MustParseAddr("fd00:9::3")},
		"lookup by key":                    Lookup{ID: 9, By: ByKey, Key: key},
		"lookup by name":                   Lookup{ID: 9, By: ByName, Name: "web-1"},
		"lookup reply, found":              LookupReply{ID: 9, Member: smallMember(t)},
		"lookup reply, the longest":        LookupReply{ID: 9, Member: fullMember(t)},
		"lookup reply, nameless, offline":  LookupReply{ID: 9, Member: Member{Key: key}},
		"lookup reply, not found":          LookupReply{ID: 9, Status: LookupNotFound},
		"lookup reply, try later":          LookupReply{ID: 9, Status: LookupTryLater},
		"open circuit":                     OpenCircuit{ID: 10, Remote: key},
		"open circuit reply, ok":           OpenCircuitReply{ID: 10, Circuit: 0x1122334455667788},
		"open circuit reply, no member":    OpenCircuitReply{ID: 10, Status: CircuitNoMember},
		"open circuit reply, offline":      OpenCircuitReply{ID: 10, Status: CircuitOffline},
		"open circuit reply, limit":        OpenCircuitReply{ID: 10, Status: CircuitLimit},
		"circuit offered":                  CircuitOffered{Circuit: 0x8877665544332211, Remote: smallMember(t)},
		"circuit offered, the longest":     CircuitOffered{Circuit: 1<<64 - 1, Remote: fullMember(t)},
		"close circuit":                    CloseCircuit{Circuit: 0x1122334455667788},
		"close circuit, the greatest id":   CloseCircuit{Circuit: 1<<64 - 1},
		"lookup by name, the longest name": Lookup{ID: 1<<32 - 1, By: ByName, Name: strings.Repeat("x", MaxName)},
	}
}

func TestControlRoundTrip(t *testing.T) {
	longest := 0
	for name, c := range controls(t) {
		t.Run(name, func(t *testing.T) {
			b, err := c.Append([]byte("kept"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(b, []byte("kept")) {
				t.Fatal("what was there before is gone")
			}
			b = b[4:]
			longest = max(longest, len(b))
			if InnerOf(b) != InnerControl {
				t.Fatalf("begins with %#x", b[0])
			}
			got, err := ParseControl(b)
			if err != nil || !reflect.DeepEqual(got, c) {
				t.Fatalf("%+v, %v; want %+v", got, err, c)
			}
			// The result borrows nothing.
			scribbled := bytes.Clone(b)
			got, _ = ParseControl(scribbled)
			clear(scribbled)
			if !reflect.DeepEqual(got, c) {
				t.Fatal("the result borrows from the message")
			}
			if _, err := ParseControl(append(bytes.Clone(b), 0)); !errors.Is(err, ErrMalformed) {
				// One more character only makes another name or, at its end, a bad one.
				if _, ok := c.(Probe); !ok { // and one more zero, more padding
					t.Fatalf("one byte more: %v", err)
				}
			}
			for n := range b {
				if _, ok := c.(Probe); ok && n >= ProbeLen {
					continue // less padding
				}
				if l, ok := c.(Lookup); ok && (l.By == ByName && n > 6 || l.By == ByAddress && n == 6+4) {
					continue // a shorter name, an IPv4 address
				}
				if c, err := ParseControl(b[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("cut to %d of %d: %+v, %v", n, len(b), c, err)
				}
			}
		})
	}
	if longest != MaxControl {
		t.Errorf("longest message is %d bytes, MaxControl %d", longest, MaxControl)
	}
	if MaxControl+DataOverhead+CircuitOverhead > 1200 {
		t.Errorf("a control message may take %d bytes", MaxControl+DataOverhead+CircuitOverhead)
	}
}

// malformedControls is shared with the vectors.
func malformedControls(t testing.TB) map[string]string {
	key := newTestLocal(t, 3).Public()
	k := fmt.Sprintf("%x", key[:])
	found := "1100000009" + "00"
	member := k + "00" + "00" + "00" // no name, offline, no address; then prefixes
	return map[string]string{
		"empty":                                ``,
		"unknown kind 00":                      `00`,
		"unknown kind 03":                      `030102030405060708`,
		"an IPv4 packet":                       `45000014`,
		"probe, padding not zero":              `010102030405060708` + `00000000000000000001`,
		"probe, first of padding not zero":     `010102030405060708` + `01000000000000000000`,
		"probe reply, padded":                  `020102030405060708` + `00` + `00`,
		"probe reply, address of 5 bytes":      `020102030405060708` + `05` + `c000020113b0`,
		"probe reply, address of 1 byte":       `020102030405060708` + `01` + `c0`,
		"probe reply, port 0":                  `020102030405060708` + `06` + `c0000201` + `0000`,
		"probe reply, mapped address":          `020102030405060708` + `12` + `00000000000000000000ffffc0000201` + `13b0`,
		"lookup by 0":                          `1000000009` + `00` + `0a090003`,
		"lookup by 4":                          `1000000009` + `04` + `0a090003`,
		"lookup by address of 5 bytes":         `1000000009` + `01` + `0a09000300`,
		"lookup by no address":                 `1000000009` + `01`,
		"lookup by mapped address":             `1000000009` + `01` + `00000000000000000000ffffc0000201`,
		"lookup by key zero":                   `1000000009` + `02` + strings.Repeat("00", 32),
		"lookup by key in another form":        `1000000009` + `02` + fmt.Sprintf("%x", key[:31]) + fmt.Sprintf("%02x", key[31]|0x80),
		"lookup by empty name":                 `1000000009` + `03`,
		"lookup by name in upper case":         `1000000009` + `03` + hex.EncodeToString([]byte("Web")),
		"lookup by name with a dot":            `1000000009` + `03` + hex.EncodeToString([]byte("a.b")),
		"lookup by name with a hyphen first":   `1000000009` + `03` + hex.EncodeToString([]byte("-a")),
		"lookup by name with a hyphen last":    `1000000009` + `03` + hex.EncodeToString([]byte("a-")),
		"lookup by name with a zero":           `1000000009` + `03` + `6100`,
		"lookup by name of 64":                 `1000000009` + `03` + strings.Repeat("61", 64),
		"lookup reply, status 3":               `1100000009` + `03`,
		"lookup reply, not found, with member": `1100000009` + `01` + member + `00`,
		"member, key of low order":             found + "01" + strings.Repeat("00", 31) + `00000000`,
		"member, name longer than the rest":    found + k + `3f` + `61`,
		"member, name of 64":                   found + k + `40` + strings.Repeat("61", 64) + `000000`,
		"member, unknown flag":                 found + k + `00` + `02` + `00` + `00`,
		"member, 57 prefixes":                  found + member + `39` + strings.Repeat("040a00000020", 57),
		"member, fewer prefixes than said":     found + member + `02` + `040a00000020`,
		"member, more prefixes than said":      found + member + `01` + strings.Repeat(`040a00000020`, 2),
		"member, prefix with stray bits":       found + member + `01` + `040a0000011f`,
		"member, prefix /33":                   found + member + `01` + `040a00000021`,
		"member, prefix /129":                  found + member + `01` + `10fd` + strings.Repeat("00", 15) + `81`,
		"member, prefix of 5 bytes":            found + member + `01` + `050a0000000020`,
		"member, mapped prefix":                found + member + `01` + `10` + `00000000000000000000ffff0a000000` + `80`,
		"open circuit, key of low order":       `120000000a` + strings.Repeat("00", 32),
		"open circuit reply, ok without id":    `130000000a` + `00`,
		"open circuit reply, ok with id zero":  `130000000a` + `00` + `0000000000000000`,
		"open circuit reply, failed with id":   `130000000a` + `01` + `1122334455667788`,
		"open circuit reply, status 4":         `130000000a` + `04`,
		"circuit offered, id zero":             `14` + `0000000000000000` + member + `00`,
		"close circuit, id zero":               `15` + `0000000000000000`,
	}
}

func TestControlMalformed(t *testing.T) {
	for name, h := range malformedControls(t) {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c, err := ParseControl(b); !errors.Is(err, ErrMalformed) || c != nil {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// What is kept of a message is short, and means the same to who answers it.
func TestTrimControl(t *testing.T) {
	for name, c := range controls(t) {
		b, err := c.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		want := c
		if p, ok := c.(Probe); ok {
			want = Probe{Token: p.Token}
		}
		trimmed, ok := TrimControl(b)
		if got, err := ParseControl(trimmed); !ok || err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, %v; want %+v", name, got, ok, err, want)
		}
	}
	probe := func(padding ...byte) []byte {
		return append(append([]byte{kindProbe}, make([]byte, ProbeLen-1)...), padding...)
	}
	for name, b := range map[string][]byte{
		"padding not zero":         probe(0, 0, 0, 0, 0, 0, 0, 0, 1),
		"padding beyond any size":  probe(make([]byte, MaxPadding+1)...),
		"no probe, and too long":   append([]byte{kindLookup}, make([]byte, MaxControl)...),
		"unknown, and too long":    append([]byte{0}, make([]byte, MaxControl)...),
		"a reply with much behind": append([]byte{kindProbeReply}, make([]byte, MaxControl)...),
	} {
		if trimmed, ok := TrimControl(b); ok {
			t.Errorf("%s: passes as %d bytes", name, len(trimmed))
		}
		if c, err := ParseControl(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: parses as %T", name, c)
		}
	}
}

func TestControlAppendErrors(t *testing.T) {
	key := newTestLocal(t, 3).Public()
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	member := func(f func(*Member)) Control {
		m := smallMember(t)
		f(&m)
		return LookupReply{Member: m}
	}
	for name, c := range map[string]Control{
		"less padding than none": Probe{Padding: -1},
		"more than a datagram":   Probe{Padding: MaxPadding + 1},
		"port 0":                 ProbeReply{Observed: netip.AddrPortFrom(here.Addr(), 0)},
		"by nothing":             Lookup{},
		"no address":             Lookup{By: ByAddress},
		"mapped address":         Lookup{By: ByAddress, Address: mapped},
		"zone":                   Lookup{By: ByAddress, Address: netip.MustParseAddr("fe80::1%eth0")},
		"no key":                 Lookup{By: ByKey},
		"no name":                Lookup{By: ByName},
		"status of lookup":       LookupReply{Status: 3},
		"no member":              LookupReply{},
		"name":                   member(func(m *Member) { m.Name = "A" }),
		"too many prefixes":      member(func(m *Member) { m.Prefixes = slices.Repeat(m.Prefixes[:1], MaxPrefixes+1) }),
		"zero prefix":            member(func(m *Member) { m.Prefixes[0] = netip.Prefix{} }),
		"stray bits":             member(func(m *Member) { m.Prefixes[0] = netip.PrefixFrom(here.Addr(), 8) }),
		"mapped prefix":          member(func(m *Member) { m.Prefixes[0] = netip.PrefixFrom(mapped, 128) }),
		"observed port 0":        member(func(m *Member) { m.Observed = netip.AddrPortFrom(here.Addr(), 0) }),
		"circuit to no key":      OpenCircuit{},
		"circuit status":         OpenCircuitReply{Status: 4},
		"circuit ok, no id":      OpenCircuitReply{},
		"offered, no id":         CircuitOffered{Remote: Member{Key: key}},
		"offered, no key":        CircuitOffered{Circuit: 1},
		"close, no id":           CloseCircuit{},
	} {
		if b, err := c.Append(nil); err == nil || b != nil {
			t.Errorf("%s: wrote %x, %v", name, b, err)
		}
	}
}

// Addresses as dual-stack sockets give them are written plainly.
func TestObservedIsUnmapped(t *testing.T) {
	for in, want := range map[string]netip.AddrPort{
		"[::ffff:192.0.2.1]:5040": here,
		"[fe80::1%eth0]:5040":     netip.MustParseAddrPort("[fe80::1]:5040"),
	} {
		b, err := ProbeReply{Observed: netip.MustParseAddrPort(in)}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseControl(b)
		if got, _ := c.(ProbeReply); err != nil || got.Observed != want {
			t.Errorf("%s: %v, %v", in, got.Observed, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for s, ok := range map[string]bool{
		"a": true, "web-1": true, "0": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "A": false, "a_b": false, "a.b": false, "-": false, "a-": false, "-a": false, "é": false, "a b": false,
	} {
		if err := CheckName(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzControl(f *testing.F) {
	for _, c := range controls(f) {
		b, err := c.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, h := range malformedControls(f) {
		b, _ := hex.DecodeString(h)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseControl(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		trimmed, ok := TrimControl(b)
		if !ok || len(trimmed) > MaxControl {
			t.Fatalf("%d bytes parse, and are %d trimmed, %v", len(b), len(trimmed), ok)
		}
		again, err := c.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is %+v is %x, %v", b, c, again, err)
		}
	})
}

func FuzzMember(f *testing.F) {
	for _, m := range []Member{smallMember(f), fullMember(f)} {
		b, err := m.append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{b: b}
		m := r.member()
		if r.bad {
			return
		}
		again, err := m.append(nil)
		if err != nil || !bytes.Equal(again, b[:len(b)-len(r.b)]) {
			t.Fatalf("%x is %+v is %x, %v", b, m, again, err)
		}
		for _, p := range m.Prefixes {
			if p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("prefix %v", p)
			}
		}
	})
}
