package engine

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

func strangerKey(i int) wire.PrivateKey {
	return wire.PrivateKey{1: byte(i), 2: byte(i >> 8), 3: 77, 31: 0x40}
}

// strangersTo makes initiations for n by keys that nobody knows.
func strangersTo(t testing.TB, n *Engine, count int) (all [][]byte) {
	t.Helper()
	for i := range count {
		l, err := wire.NewLocal(strangerKey(i))
		if err != nil {
			t.Fatal(err)
		}
		_, msg, err := l.Initiate(nil, n.PublicKey(), wire.PresharedKey{}, wire.Index(i), time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

func forgedSource(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}), 7)
}

// However slowly they come, so that none ever waits.
func TestStrangersCostFewExchangesBeforeTheyMustShowCookies(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		flood := strangersTo(t, b.engine, 64)
		const count, seconds = 3000, 3
		for i := range count {
			l.net.Inject(forgedSource(i), b.addr, flood[i%len(flood)])
			advance(seconds * time.Second / count)
		}
		most := uint64(unprovenBurst + seconds*time.Second/unprovenRefill)
		if n := b.drops(DropUnknownKey); n == 0 || n > most {
			t.Errorf("%d of %d strangers were looked at, want no more than %d", n, count, most)
		}
		if n := b.drops(DropUnknownKey) + b.drops(DropCookie); n != count {
			t.Errorf("%d were looked at or asked for cookies, want all %d", n, count)
		}
		a := l.plan("a")
		a.start()
		b.knows(a, "")
		a.knows(b, at(b))
		advance(10 * time.Millisecond)
		wantsOneSession(a, b)
		advance(time.Minute)
		before := b.drops(DropCookie)
		l.net.Inject(forgedSource(0), b.addr, flood[0])
		if n := b.drops(DropCookie); n != before {
			t.Error("a minute after the flood there is still load")
		}
	})
}

func TestMembersNeedNoCookiesHoweverManyCome(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		const members = 4 * unprovenBurst
		for i, msg := range strangersTo(t, b.engine, members) {
			k, _ := wire.NewLocal(strangerKey(i))
			if _, err := b.engine.AddRemote(RemoteConfig{PublicKey: k.Public()}); err != nil {
				t.Fatal(err)
			}
			l.net.Inject(forgedSource(i), b.addr, msg)
			b.drops(DropCookie) // and so it has been served before the next
		}
		if n := b.drops(DropCookie); n != 0 {
			t.Errorf("%d of %d members were asked for cookies", n, members)
		}
	})
}

// TestWhoAsksAgainIsToldOfCookiesBesideAFlood that takes all there are for who asks the first time, within the time of the first copy.
func TestWhoAsksAgainIsToldOfCookiesBesideAFlood(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		b.underLoad()
		flood := strangersTo(t, b.engine, 1)[0]
		forged := 0
		const each = time.Second / 20_000
		floods := func(d time.Duration) {
			for range d / each {
				l.net.Inject(forgedSource(forged), b.addr, flood)
				forged++
				advance(each)
			}
		}
		floods(time.Second / 4)
		for i := range 10 {
			a := l.node(fmt.Sprint("a", i))
			b.knows(a, "")
			floods(time.Duration(3*i) * each) // so that not all of them come when a cookie is to be had
			r := a.knows(b, at(b))
			floods(copyAfter + 10*time.Millisecond)
			if r.current.Load() == nil {
				t.Errorf("newcomer %d has no session", i)
			}
		}
	})
}

// TestAskersAreKnownForAsLongAsTheyMayTakeToAskAgain, beside a flood, and not for ever; and few are taken for another.
func TestAskersAreKnownForAsLongAsTheyMayTakeToAskAgain(t *testing.T) {
	var k askers
	now := time.Now()
	var strange, asked, known int
	const seconds, rate = 20, 20_000
	for i := range seconds * rate {
		if k.again(forgedSource(i), now) {
			strange++
		}
		if late := i - int(lastRetry.Seconds()*1.125*rate); late >= 0 && late%1000 == 0 {
			asked++
			if k.again(forgedSource(late), now) {
				known++
			}
		}
		now = now.Add(time.Second / rate)
	}
	if asked == 0 || known != asked {
		t.Errorf("%d of %d that ask again are known", known, asked)
	}
	if share := float64(strange) / (seconds * rate); share > 0.08 {
		t.Errorf("%.0f %% of strangers are taken for who asked before", share*100)
	}
	now = now.Add(2 * askedFor)
	known = 0
	for i := range rate {
		if k.again(forgedSource(seconds*rate-1-i), now) {
			known++
		}
	}
	if share := float64(known) / rate; share > 0.05 {
		t.Errorf("%.0f %% are known for ever", share*100)
	}
}

func TestAddressesOfOneIPv6NetworkShareABudget(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name string
		addr func(i byte) netip.Addr
		want int
	}{
		{"IPv4", func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, i}) }, 3 * wire.CooldownBurst},
		{"IPv4, mapped", func(i byte) netip.Addr {
			return netip.AddrFrom16(netip.AddrFrom4([4]byte{203, 0, 113, i}).As16())
		}, 3 * wire.CooldownBurst},
		{"one /64", func(i byte) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 7: 1, 15: i}) }, wire.CooldownBurst},
		{"several /64", func(i byte) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 7: i, 15: 1}) }, 3 * wire.CooldownBurst},
	} {
		b := make(budgets)
		taken := 0
		for i := range byte(3) {
			for range 2 * wire.CooldownBurst {
				if b.take(c.addr(i), now) {
					taken++
				}
			}
		}
		if taken != c.want {
			t.Errorf("%s: three addresses take %d, want %d", c.name, taken, c.want)
		}
	}
}

func TestLoadIsLoggedOnceAMinute(t *testing.T) {
	e, in, _ := fuzzed(t)
	in.carrier = deaf{}
	var said strings.Builder
	e.log = slog.New(slog.NewTextHandler(&said, nil))
	msg := strangersTo(t, e, 1)[0]
	begin := time.Now()
	for at := time.Duration(0); at < 10*time.Minute; at += time.Second {
		in.now = begin.Add(at)
		for range 2 * unprovenBurst { // as many as a flood has, though nobody serves them
			in.initiation(msg, path{carrier: in.carrier, addr: forgedSource(1)})
		}
		in.replies.flush(in.carrier)
	}
	if n := strings.Count(said.String(), "\n"); n != 10 {
		t.Errorf("%d lines in 10 minutes, want 10:\n%s", n, said.String())
	}
	if !strings.Contains(said.String(), "keys are known here") {
		t.Errorf("the log does not say what to do: %s", said.String())
	}
}

// Once their senders have been told what they are told.
func TestAFloodAllocatesNothing(t *testing.T) {
	e, in, s := fuzzed(t)
	in.carrier = deaf{}
	in.out = packet.NewCoalescer(new(nowhere), func(error) {}) // the device of tests allocates
	to := func(b []byte) *underlay.Message {
		return &underlay.Message{Buf: b, Seg: len(b), Addr: netip.MustParseAddrPort("192.0.2.66:6")}
	}
	data := make([]byte, 1200)
	wrongTag := append([]byte{byte(wire.KindData), 0, 0, 0, byte(s.local >> 24), byte(s.local >> 16), byte(s.local >> 8), byte(s.local)}, data...)
	badMAC1 := strangersTo(t, e, 1)[0]
	badMAC1[len(badMAC1)-17] ^= 1
	guessed := strangersTo(t, e, 1)[0]
	guessed[len(guessed)-1] ^= 1 // MAC2
	for _, c := range []struct {
		name string
		b    []byte
		drop Drop
	}{
		{"noise", append([]byte{99}, data...), DropMalformed},
		{"data for an index nobody has", append([]byte{byte(wire.KindData), 0, 0, 0, 1, 2, 3, 4}, data...), DropUnknownIndex},
		{"data with a wrong tag", wrongTag, DropTag},
		{"handshakes with a wrong MAC1", badMAC1, DropMAC1},
		{"handshakes without a cookie", strangersTo(t, e, 1)[0], DropCookie},
		{"handshakes with a guess of one", guessed, DropCookie},
		{"responses to nothing", append([]byte{byte(wire.KindResponse), 0, 0, 0}, data[:wire.ResponseLen-4]...), DropUnexpected},
	} {
		in.now = time.Now()
		receive := func() {
			in.message(to(c.b))
			in.replies.flush(in.carrier)
			in.out.Flush()
		}
		for range unprovenBurst {
			receive()
		}
		before := e.Dropped(c.drop)
		if n := testing.AllocsPerRun(100, receive); n >= 1 && !raceEnabled { // the detector allocates
			t.Errorf("%s: %v allocations each", c.name, n)
		}
		if n := e.Dropped(c.drop) - before; n < 100 {
			t.Errorf("%s: %d of 100 dropped as %v", c.name, n, c.drop)
		}
	}
}

// deaf is a carrier that sends nowhere.
type deaf struct{ underlay.Carrier }

func (deaf) Send([]underlay.Message) error { return nil }
