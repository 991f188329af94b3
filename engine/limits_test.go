package engine

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Each limit of this package (docs/architecture.md, "Limits") is gone beyond here.

// TestHeldPacketsAreLimitedAndTheOldestGo: while a remote is not there, as many packets wait as the limits of their number and of
// their bytes let, the newest.
func TestHeldPacketsAreLimitedAndTheOldestGo(t *testing.T) {
	const beyond = 50
	now := time.Now()
	for name, test := range map[string]struct{ size, most int }{
		"by number": {100, maxHeldPackets},
		"by bytes":  {4096, maxHeldBytes / 4096},
		"one alone": {60_000, maxHeldBytes / 60_000},
	} {
		var h held
		dropped := 0
		for i := range test.most + beyond {
			b := make([]byte, test.size)
			binary.BigEndian.PutUint32(b, uint32(i))
			dropped += h.add(&packet.Packet{Pieces: [][]byte{b}}, now)
		}
		if len(h.packets) != test.most || dropped != beyond || h.bytes != test.most*test.size {
			t.Errorf("%s: %d packets of %d bytes wait, %d were dropped; want %d and %d", name, len(h.packets), h.bytes, dropped, test.most, beyond)
		}
		if first := binary.BigEndian.Uint32(h.packets[0].bytes); first != beyond {
			t.Errorf("%s: the oldest that waits is number %d, want %d", name, first, beyond)
		}
	}
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.plan("b")
		a.knows(b, "")
		for range maxHeldPackets + beyond {
			a.send(b, "x")
		}
		if n := a.drops(DropHeld); n != beyond {
			t.Errorf("%d counted, want %d", n, beyond)
		}
	})
}

// TestTheHandshakeQueueIsLimitedAndTheNewestAreDropped: beyond what may wait without a cookie an initiation earns one, and with one as
// many wait as there is room for.
func TestTheHandshakeQueueIsLimitedAndTheNewestAreDropped(t *testing.T) {
	e, in, _ := fuzzed(t) // nobody serves the queue
	local, err := wire.NewLocal(wire.PrivateKey{200, 31: 0x40})
	if err != nil {
		t.Fatal(err)
	}
	const beyond = 30
	now := time.Now()
	in.now = now
	_, msg, err := local.Initiate(nil, e.PublicKey(), wire.PresharedKey{}, 1, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range handshakeQueue + beyond {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 7)
		cookie := wire.NewCookie(e.PublicKey())
		cookie.Stamp(msg, now)
		if i >= underLoad {
			in.initiation(msg, path{carrier: in.carrier, addr: from})
			reply, err := e.inbox.doorkeeper.jar.AppendReply(nil, nil, msg, from, now)
			if err != nil || cookie.Open(reply, now) != nil || !cookie.Stamp(msg, now) {
				t.Fatal("no cookie")
			}
		}
		in.initiation(msg, path{carrier: in.carrier, addr: from})
	}
	if n := len(e.inbox.handshakes); n != handshakeQueue {
		t.Errorf("%d wait, want %d", n, handshakeQueue)
	}
	if n := e.Dropped(DropHandshakeQueue); n != beyond {
		t.Errorf("%d counted as beyond the queue, want %d", n, beyond)
	}
	if n := e.Dropped(DropCookie); n != handshakeQueue+beyond-underLoad {
		t.Errorf("%d were asked for a cookie, want %d", n, handshakeQueue+beyond-underLoad)
	}
}

// TestCookieRepliesAreLimited: beyond so many at once and so many a second, who has to show a cookie is not told so, and counted all the same.
func TestCookieRepliesAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		b.underLoad()
		msg := strangersTo(t, b.engine, 1)[0]
		replies := l.record(wire.KindCookieReply)
		k := &b.engine.inbox.doorkeeper
		k.mu.Lock()
		k.askers.again(netip.AddrPort{}, time.Now())
		same := askers{seed: k.askers.seed, words: new([askerWords][2]uint64), since: k.askers.since} // takes the same for who asked
		k.mu.Unlock()
		const many = 2 * followingBurst
		asked := 0
		for round, wait := range []struct {
			d                time.Duration
			first, following int
		}{{0, firstBurst, followingBurst}, {20 * time.Millisecond, 20, 200}, {time.Hour, firstBurst, followingBurst}} {
			advance(wait.d)
			first, following := wait.first, wait.following // left
			for _, which := range []string{"the first time", "again"} {
				want := 0
				for i := range many {
					from := forgedSource(round*many + i)
					left := &first
					if same.again(from, time.Now()) {
						left = &following
					}
					if *left > 0 {
						*left--
						want++
					}
					l.net.Inject(from, b.addr, msg)
				}
				synctest.Wait()
				asked += many
				if n := len(replies.take()); n != want {
					t.Errorf("after %v, asked %s: %d cookies, want %d", wait.d, which, n, want)
				}
				if n := b.drops(DropCookie); n != uint64(asked) {
					t.Errorf("%d of %d are counted", n, asked)
				}
			}
			if first+following > 0 {
				t.Errorf("after %v: %d cookies are left", wait.d, first+following)
			}
		}
	})
}

// TestPendingControlWorkIsLimitedAndTheNewestIsDropped, each by the reason of its kind.
func TestPendingControlWorkIsLimitedAndTheNewestIsDropped(t *testing.T) {
	e, in, s := fuzzed(t)
	const beyond = 25
	for range otherQueue + beyond {
		e.post(letter{msg: []byte{1}, remote: s.remote, sealed: s}, DropControl)
	}
	in.now = time.Now()
	in.message(&underlay.Message{Buf: wire.AppendNotice(nil, 7), Seg: wire.NoticeLen, Addr: netip.MustParseAddrPort("192.0.2.2:2")})
	if n := len(e.inbox.others); n != otherQueue {
		t.Errorf("%d wait, want %d", n, otherQueue)
	}
	if n, m := e.Dropped(DropControl), e.Dropped(DropHandshakeQueue); n != beyond || m != 1 {
		t.Errorf("%d control messages and %d notices counted, want %d and 1", n, m, beyond)
	}
}

// TestNoticesHeededAreLimited: anybody can send them.
func TestNoticesHeededAreLimited(t *testing.T) {
	e, in, _ := fuzzed(t)
	in.now = time.Now()
	for range heedPerSecond + 500 {
		in.message(&underlay.Message{Buf: wire.AppendNotice(nil, 7), Seg: wire.NoticeLen, Addr: netip.MustParseAddrPort("192.0.2.2:2")})
		for len(e.inbox.others) > 0 {
			<-e.inbox.others
		}
	}
	if n := e.Dropped(DropUnexpected); n != 500 {
		t.Errorf("%d of %d notices were not heeded, want 500", n, heedPerSecond+500)
	}
}

// TestNoticesSentAreLimited: data of unknown sessions is all dropped and counted, and not all of it answered.
func TestNoticesSentAreLimited(t *testing.T) {
	e, in, _ := fuzzed(t)
	in.now = time.Now()
	data := make([]byte, wire.DataOverhead)
	data[0], data[7] = byte(wire.KindData), 99
	sent := in.carrier.(*underlay.Node).Stats().DatagramsSent
	const many = 10 * noticesPerSecond
	for range many {
		in.message(&underlay.Message{Buf: data, Seg: len(data), Addr: netip.MustParseAddrPort("203.0.113.7:7")})
	}
	in.replies.flush(in.carrier)
	if n := in.carrier.(*underlay.Node).Stats().DatagramsSent - sent; n != noticesPerSecond {
		t.Errorf("%d notices for %d datagrams, want %d", n, many, noticesPerSecond)
	}
	if n := e.Dropped(DropUnknownIndex); n != many {
		t.Errorf("%d counted, want %d", n, many)
	}
}

// TestAddressesWithBudgetsAreLimited: when there are too many, all are forgotten, which lets each begin with a full one.
func TestAddressesWithBudgetsAreLimited(t *testing.T) {
	m, now := make(budgets), time.Now()
	most := 0
	for i := range 3 * maxBudgets {
		if !m.take(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), now) {
			t.Fatalf("address %d was refused", i)
		}
		most = max(most, len(m))
	}
	if most != maxBudgets {
		t.Errorf("%d addresses were remembered, want %d", most, maxBudgets)
	}
}

// TestQuestionsToRelaysAreLimited: beyond the limit the answer is at once that there is none.
func TestQuestionsToRelaysAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, relay := l.node("a"), l.plan("relay") // which is not there
		r, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true})
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan wire.Control, maxRequests+10)
		for range maxRequests + 10 {
			a.engine.requests.ask(r, func(id wire.QuestionID) wire.Control { return wire.Lookup{ID: id, By: wire.ByName, Name: "b"} }, time.Now(), func(c wire.Control) { answers <- c })
		}
		synctest.Wait()
		if n := len(answers); n != 10 {
			t.Errorf("%d questions came back at once, want 10", n)
		}
		advance(time.Minute)
		if n := len(answers); n != maxRequests+10 || len(a.engine.requests.open) != 0 {
			t.Errorf("%d of %d came back; %d are open", n, maxRequests+10, len(a.engine.requests.open))
		}
	})
}

// TestAddressesAskedForAreLimited: packets to more addresses than that are dropped and counted; when the answers are old there is room.
func TestAddressesAskedForAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, relay := l.node("a"), l.plan("relay") // which is not there
		if _, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true}); err != nil {
			t.Fatal(err)
		}
		const beyond = 40
		scan := func(from int) {
			for i := range maxLookups + beyond {
				to := netip.AddrFrom4([4]byte{10, 9, byte(1 + (from+i)>>8), byte(from + i)})
				a.dev.in <- udpPacket(a.ip, to, "x")
				if i%500 == 0 {
					synctest.Wait()
				}
			}
			synctest.Wait()
		}
		scan(0)
		if n, m := len(a.engine.lookups.dst), a.drops(DropNoRoute); n != maxLookups || m != beyond {
			t.Errorf("%d addresses are asked for, %d packets counted; want %d and %d", n, m, maxLookups, beyond)
		}
		advance(time.Minute)
		dropped := a.drops(DropNoRoute)
		scan(20_000)
		if n, m := len(a.engine.lookups.dst), a.drops(DropNoRoute)-dropped; n != maxLookups || m != beyond {
			t.Errorf("a minute later: %d addresses are asked for, %d packets counted; want %d and %d", n, m, maxLookups, beyond)
		}
	})
}

// TestStrangersAskedAboutAreLimited: when there are too many, all are forgotten.
func TestStrangersAskedAboutAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, relay := l.node("a"), l.plan("relay")
		if _, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true}); err != nil {
			t.Fatal(err)
		}
		for i := range 2*maxLookups + 10 {
			a.engine.lookups.meet(wire.PublicKey{byte(i), byte(i >> 8), 1}, letter{msg: []byte{1}}, time.Now())
			if n := len(a.engine.lookups.met); n > maxLookups {
				t.Fatalf("%d strangers are remembered", n)
			}
		}
	})
}

// TestRemotesLearntAreLimited: one more is not taken in, and what is there is not harmed.
func TestRemotesLearntAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		e, rb := a.engine, a.remote(b)
		e.mu.Lock()
		real := e.remotes
		e.remotes = maps.Clone(real)
		for i := range maxRemotes - 1 {
			e.remotes[wire.PublicKey{byte(i), byte(i >> 8), 2}] = rb
		}
		e.mu.Unlock()
		member := wire.Member{Key: wire.PrivateKey{77, 31: 0x40}.Public(), Name: "one-more"}
		if r := e.learn(member); r != nil {
			t.Error("one more remote was taken in")
		}
		if e.learn(wire.Member{Key: b.key.Public()}) == nil {
			t.Error("one that is known was not found")
		}
		e.mu.Lock()
		e.remotes = real
		e.mu.Unlock()
		if r := e.learn(member); r == nil {
			t.Error("not taken in though there is room")
		}
	})
}

func TestCopiesForARemoteThatMayHaveRestartedAreFewAndShort(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		advance(time.Minute)
		l.net.Partition(a.addr, b.addr)
		long := make([]byte, maxUnheardLen)
		for range 3 * maxUnheard {
			a.send(b, string(long))
			a.send(b, "short")
			advance(10 * time.Millisecond)
		}
		u := &a.remote(b).unheard
		if n := len(u.packets); n != maxUnheard || int(u.count.Load()) != n {
			t.Errorf("%d copies are kept, want %d", n, maxUnheard)
		}
		for _, p := range u.packets {
			if len(p.bytes) > maxUnheardLen {
				t.Errorf("a copy of %d bytes is kept", len(p.bytes))
			}
		}
	})
}

// TestSessionsOfARemoteAreThreeAtMost: whoever begins handshakes without end, and confirms none of them or all, holds a current, a
// previous and one that waits for confirmation; and of those that are over no more than the indexes of the last.
func TestSessionsOfARemoteAreThreeAtMost(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		most, former := 0, 0
		round := func(unconfirmed int) {
			a.renew(b)
			advance(wire.Cooldown)
			a.send(b, "by the new session")
			b.send(a, "by the new session")
			synctest.Wait()
			for _, d := range a.initiations(b, unconfirmed, time.Nanosecond, time.Now()) {
				l.net.Inject(attacker, b.addr, d)
			}
			synctest.Wait()
			for _, n := range []*node{a, b} {
				sessions, over := n.held()
				most, former = max(most, sessions), max(former, over)
			}
		}
		for range 40 {
			round(3)
		}
		for range 20 {
			round(0)
		}
		if most != 3 {
			t.Errorf("up to %d sessions were held, want 3", most)
		}
		if former != maxFormer {
			t.Errorf("up to %d indexes of former sessions were held, want %d", former, maxFormer)
		}
	})
}
