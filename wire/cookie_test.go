package wire

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"
)

var (
	here  = netip.MustParseAddrPort("192.0.2.1:5040")
	there = netip.MustParseAddrPort("[2001:db8::1]:5040")
)

func TestCookie(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	jar, cookie := NewCookieJar(b), NewCookie(b.Public())
	_, m1 := initiate(t, a, b, PresharedKey{}, "")
	now := start

	if cookie.Stamp(m1, now) || !bytes.Equal(m1[len(m1)-macLen:], make([]byte, macLen)) {
		t.Fatal("stamped without a cookie")
	}
	if jar.Check(m1, here, now) {
		t.Fatal("zero MAC2 passes before any reply")
	}
	reply, err := jar.AppendReply(nil, nil, m1, here, now)
	if err != nil {
		t.Fatal(err)
	}
	if KindOf(reply) != KindCookieReply || len(reply) >= ResponseLen {
		t.Fatalf("reply of %d bytes", len(reply))
	}
	if r, ok := ReceiverOf(reply); !ok || r != 11 {
		t.Fatalf("reply is for index %d", r)
	}
	if jar.Check(m1, here, now) {
		t.Fatal("zero MAC2 passes")
	}
	for i := range reply {
		if i >= 4 && i < 8 {
			continue // the index, by which the caller finds the Cookie
		}
		f := bytes.Clone(reply)
		f[i] ^= 1
		if err := cookie.Open(f, now); err == nil {
			t.Fatalf("byte %d flipped: opened", i)
		}
	}
	if err := NewCookie(b.Public()).Open(reply, now); !errors.Is(err, ErrTag) {
		t.Fatalf("nothing was sent: %v", err)
	}
	if err := cookie.Open(reply, now); err != nil {
		t.Fatal(err)
	}
	if err := cookie.Open(reply, now); !errors.Is(err, ErrTag) {
		t.Fatalf("the same reply again: %v", err)
	}

	_, m1, err = a.Initiate(nil, b.Public(), PresharedKey{}, 12, now.Add(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !cookie.Stamp(m1, now) || !jar.Check(m1, here, now) {
		t.Fatal("the cookie does not pass")
	}
	if !b.CheckMAC1(m1) {
		t.Fatal("stamping broke MAC1")
	}
	if _, err := b.ReadInitiation(m1); err != nil {
		t.Fatalf("stamped initiation: %v", err)
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(here.Addr().As16()), here.Port())
	if !jar.Check(m1, mapped, now) {
		t.Error("an IPv4 address fails when mapped")
	}
	for _, from := range []netip.AddrPort{there, netip.MustParseAddrPort("192.0.2.1:5041"), netip.MustParseAddrPort("192.0.2.2:5040"), {}} {
		if jar.Check(m1, from, now) {
			t.Errorf("the cookie passes from %v", from)
		}
	}
	for i := range m1 {
		f := bytes.Clone(m1)
		f[i] ^= 1
		if jar.Check(f, here, now) {
			t.Fatalf("byte %d flipped: passes", i)
		}
	}
}

// A cookie is stamped for two minutes, in all of which it passes, whenever in the life of the secret it was made; and
// it does not pass for more than four.
func TestCookieLife(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	for _, age := range []time.Duration{0, time.Minute, CookieLife - 1} { // of the secret
		jar, cookie := NewCookieJar(b), NewCookie(b.Public())
		_, m1 := initiate(t, a, b, PresharedKey{}, "")
		if _, err := jar.AppendReply(nil, nil, m1, there, start); err != nil {
			t.Fatal(err)
		}
		got := start.Add(age)
		cookie.Stamp(m1, got)
		reply, err := jar.AppendReply(nil, nil, m1, here, got)
		if err != nil {
			t.Fatal(err)
		}
		if err := cookie.Open(reply, got); err != nil {
			t.Fatal(err)
		}
		late := got.Add(CookieLife - 1)
		if !cookie.Stamp(m1, late) || !jar.Check(m1, here, late) {
			t.Fatalf("secret of age %v: cookie is no good just before its end", age)
		}
		if _, err := jar.AppendReply(nil, nil, m1, there, late); err != nil { // may renew the secret
			t.Fatal(err)
		}
		if !jar.Check(m1, here, late) {
			t.Fatalf("secret of age %v: the previous secret is not accepted", age)
		}
		if jar.Check(m1, here, start.Add(2*CookieLife)) {
			t.Fatalf("secret of age %v: passes for ever", age)
		}
		if cookie.Stamp(m1, got.Add(CookieLife)) || !bytes.Equal(m1[len(m1)-macLen:], make([]byte, macLen)) {
			t.Fatalf("secret of age %v: a stale cookie was stamped", age)
		}
	}
}

// After two renewals nothing of the first secret is left.
func TestCookieSecretIsReplaced(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	jar := NewCookieJar(b)
	_, m1 := initiate(t, a, b, PresharedKey{}, "")
	var keys [][32]byte
	for i := range 3 {
		if _, err := jar.AppendReply(nil, nil, m1, here, start.Add(time.Duration(i)*CookieLife)); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, jar.secrets[0].key)
	}
	if keys[0] == keys[1] || keys[1] == keys[2] || jar.secrets[1].key != keys[1] {
		t.Error("secrets are not renewed")
	}
}

// A responder's response may earn a cookie reply too, while its own initiation is under way.
func TestCookieForBothMessages(t *testing.T) {
	a, b := newTestLocal(t, 1), newTestLocal(t, 2)
	_, ab := initiate(t, a, b, PresharedKey{}, "")
	_, ba := initiate(t, b, a, PresharedKey{}, "")
	resp, _ := respond(t, b, ab, PresharedKey{})
	jar := NewCookieJar(a) // a is under load
	for _, first := range [][]byte{ba, resp} {
		cookie := NewCookie(a.Public())
		cookie.Stamp(ba, start)
		cookie.Stamp(resp, start)
		reply, err := jar.AppendReply(nil, nil, first, here, start)
		if err != nil {
			t.Fatal(err)
		}
		if err := cookie.Open(reply, start); err != nil {
			t.Fatalf("reply to the %v: %v", KindOf(first), err)
		}
		if !cookie.Stamp(resp, start) || !jar.Check(resp, here, start) {
			t.Fatal("the cookie does not pass")
		}
	}
}

func TestCookieBadArguments(t *testing.T) {
	b := newTestLocal(t, 2)
	jar, cookie := NewCookieJar(b), NewCookie(b.Public())
	_, m1 := initiate(t, newTestLocal(t, 1), b, PresharedKey{}, "")
	for _, msg := range [][]byte{nil, {1}, AppendNotice(nil, 1), m1[:100]} {
		if jar.Check(msg, here, start) || cookie.Stamp(msg, start) {
			t.Errorf("%x passes", msg)
		}
		if _, err := jar.AppendReply(nil, nil, msg, here, start); !errors.Is(err, ErrMalformed) {
			t.Errorf("Reply(%x): %v", msg, err)
		}
	}
	for _, n := range []int{0, 31, 32, 43} {
		jar := NewCookieJar(b)
		if _, err := jar.AppendReply(nil, io.LimitReader(newStream(1), int64(n)), m1, here, start); err == nil {
			t.Errorf("%d bytes of randomness sufficed", n)
		}
		if _, err := jar.AppendReply(nil, nil, m1, here, start); err != nil {
			t.Errorf("after an error: %v", err)
		}
	}
}

func FuzzCookieReply(f *testing.F) {
	a, b := newTestLocal(f, 1), newTestLocal(f, 2)
	_, m1 := initiate(f, a, b, PresharedKey{}, "")
	reply, err := NewCookieJar(b).AppendReply(nil, newStream(103), m1, here, start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reply)
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		cookie := NewCookie(b.Public())
		cookie.Stamp(m1, start)
		if cookie.Open(msg, start) == nil && !bytes.Equal(msg[8:], reply[8:]) {
			t.Fatalf("%x opens", msg)
		}
		NewCookieJar(b).Check(msg, here, start)
	})
}
