package relay

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// two members that speak by hand, with a circuit between them.
func joined(t *testing.T, l *lab) (a, b *raw, ida, idb wire.CircuitID) {
	t.Helper()
	a, b = l.member("a"), l.member("b")
	l.start()
	a.connect()
	b.connect()
	ida, idb = join(a, b)
	return a, b, ida, idb
}

func TestACircuitCarriesEachWayUnderTheOthersID(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		if ida == idb || ida == 0 || idb == 0 {
			t.Fatalf("ids %v and %v", ida, idb)
		}
		a.send(circuitData(ida, "there"))
		b.wants(idb, "there")
		b.send(circuitData(idb, "and back"))
		a.wants(ida, "and back")
		a.send(circuitData(ida, ""))
		b.wants(idb, "")
		s := l.relay.Stats()
		if want := uint64(3*(wire.CircuitOverhead+wire.DataOverhead) + len("thereand back")); s.Datagrams != 3 || s.Bytes != want {
			t.Errorf("%d datagrams of %d bytes forwarded, want 3 of %d", s.Datagrams, s.Bytes, want)
		}
	})
}

func TestTwoMembersHaveOneCircuitWhoeverAsks(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		if again := a.open(b.key.Public()); again.Circuit != ida {
			t.Errorf("asked again, a has circuit %v, want %v", again.Circuit, ida)
		}
		if fromB := b.open(a.key.Public()); fromB.Circuit != idb {
			t.Errorf("b has circuit %v, want %v", fromB.Circuit, idb)
		}
		if n := l.circuits(); n != 1 {
			t.Errorf("%d circuits, want 1", n)
		}
	})
}

func TestCircuitIDsAreRandomAndDistinct(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		hub := l.member("hub")
		const others = 40
		all := []*raw{}
		for i := range others {
			all = append(all, l.member(fmt.Sprint("m", i)))
		}
		l.start()
		hub.connect()
		seen := make(map[wire.CircuitID]bool)
		var ones [64]int
		for _, m := range all {
			m.connect()
			x, y := join(hub, m)
			for _, id := range []wire.CircuitID{x, y} {
				if seen[id] {
					t.Fatalf("id %v twice", id)
				}
				seen[id] = true
				for bit := range ones {
					ones[bit] += int(id >> bit & 1)
				}
			}
		}
		for bit, n := range ones { // 5 to 75 of 80: a fair bit errs once in 10^16
			if n < 5 || n > 75 {
				t.Errorf("bit %d is set in %d of %d ids", bit, n, 2*others)
			}
		}
	})
}

func TestNoCircuitWithoutTheOtherEnd(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, off := l.member("a"), l.member("off")
		l.cfg.Name, l.cfg.Engine.Device = "hub", newDevice()
		l.cfg.Engine.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.9.9/24")}
		l.start()
		a.connect()
		for _, test := range []struct {
			name string
			key  wire.PublicKey
			want wire.CircuitStatus
		}{
			{"offline", off.key.Public(), wire.CircuitOffline},
			{"nobody", l.stranger().key.Public(), wire.CircuitNoMember},
			{"itself", a.key.Public(), wire.CircuitNoMember},
			{"the relay", l.key.Public(), wire.CircuitNoMember},
		} {
			if got := a.open(test.key); got.Status != test.want {
				t.Errorf("circuit to %s: %v, want %v", test.name, got.Status, test.want)
			}
		}
		if n := l.circuits(); n != 0 {
			t.Errorf("%d circuits", n)
		}
	})
}

func TestAnUnknownCircuitEarnsANoticeAtALimitedRate(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a := l.stranger()
		l.start()
		smallest := make([]byte, wire.CircuitOverhead+wire.NoticeLen)
		wire.PutCircuit(smallest, 77)
		smallest[wire.CircuitOverhead] = byte(wire.KindNotice)
		a.send(smallest)
		notices := a.takes(wire.KindCircuitNotice)
		if len(notices) != 1 || len(notices[0]) > len(smallest) {
			t.Fatalf("%d bytes of circuit data earned %d bytes", len(smallest), len(notices[0]))
		}
		if code, id, ok := wire.ParseCircuitNotice(notices[0]); !ok || code != wire.CircuitUnknown || id != 77 {
			t.Errorf("notice %v about %v", code, id)
		}
		notices = nil
		for range 10 * noticesPerStranger {
			a.send(smallest)
			notices = append(notices, a.takes(wire.KindCircuitNotice)...)
		}
		if n := len(notices); n != noticesPerStranger-1 {
			t.Errorf("%d notices at once after the first, want %d", n, noticesPerStranger-1)
		}
		advance(time.Second)
		a.send(smallest)
		if n := len(a.takes(wire.KindCircuitNotice)); n != 1 {
			t.Errorf("%d notices a second later, want 1", n)
		}
		l.wantDrops("unknown_circuit", 10*noticesPerStranger+2)
	})
}

// A run of datagrams by an unknown circuit is one question, and earns one answer.
func TestARunEarnsOneNotice(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a := l.stranger()
		l.start()
		var run []byte
		for range 10 {
			run = append(run, circuitData(5, "x")...)
		}
		if err := a.wire.Send([]underlay.Message{{Buf: run, Seg: len(run) / 10, Addr: l.addr}}); err != nil {
			t.Fatal(err)
		}
		a.wantsNotices(5, wire.CircuitUnknown)
		l.wantDrops("unknown_circuit", 10)
	})
}

func TestCircuitDataFromANewAddressIsChallengedOnceAndFlowsAfterTheAnswer(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		advance(time.Second)
		if err := a.wire.Rebind(netip.AddrPortFrom(a.addr.Addr(), 4444)); err != nil {
			t.Fatal(err)
		}
		a.send(circuitData(ida, "from elsewhere"))
		a.wantsNotices(ida, wire.CircuitMoved)
		for range 4 {
			a.send(circuitData(ida, "from elsewhere"))
			a.wantsNotices(ida)
		}
		b.wants(idb)
		l.wantDrops("moved", 5)
		a.keepalive()
		synctest.Wait()
		a.send(circuitData(ida, "it is me"))
		b.wants(idb, "it is me")
		b.send(circuitData(idb, "so I see"))
		a.wants(ida, "so I see")
	})
}

// Who knows an id and not the keys gets nothing forwarded, and the member loses nothing.
func TestAnIDIsOfNoUseFromAnotherAddress(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		thief := l.stranger()
		thief.send(circuitData(ida, "stolen"))
		thief.wantsNotices(ida, wire.CircuitMoved)
		b.wants(idb)
		b.send(circuitData(ida, "by the wrong end's id")) // b is a member, but it is a's
		a.wants(ida)
		a.send(circuitData(ida, "mine"))
		b.wants(idb, "mine")
	})
}

func TestCloseCircuit(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		b.sendControl(wire.CloseCircuit{Circuit: ida}) // not b's to close
		if n := l.circuits(); n != 1 {
			t.Fatal("closed by the wrong end's id")
		}
		a.sendControl(wire.CloseCircuit{Circuit: ida})
		if n := l.circuits(); n != 0 {
			t.Errorf("%d circuits after CloseCircuit", n)
		}
		wantsClosed(t, b, idb)
		a.send(circuitData(ida, "too late"))
		a.wantsNotices(ida, wire.CircuitUnknown)
		b.wants(idb)
		a.sendControl(wire.CloseCircuit{Circuit: ida}) // nothing to close
		if again, _ := join(a, b); again == ida {
			t.Error("an id was used again")
		}
	})
}

// wantsClosed fails unless r was told that its circuit id is closed.
func wantsClosed(t *testing.T, r *raw, id wire.CircuitID) {
	t.Helper()
	for _, m := range r.told() {
		if c, ok := m.(wire.CloseCircuit); ok && c.Circuit == id {
			return
		}
	}
	t.Errorf("not told that circuit %v is closed", id)
}

func TestACircuitEndsWithTheSessionOfEitherEnd(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		for range 8 { // b goes on, a falls silent
			advance(time.Minute)
			b.connect()
		}
		advance(time.Minute)
		b.send(circuitData(idb, "anybody there?"))
		a.wants(ida) // its session is over
		a.send(circuitData(ida, "I am"))
		a.wantsNotices(ida, wire.CircuitUnknown) // not a challenge: it must make a new one
		b.told()
		advance(sweepEvery)
		if n := l.circuits(); n != 0 {
			t.Errorf("%d circuits are left", n)
		}
		wantsClosed(t, b, idb)
		if n := members(l.relay); n != 0 {
			t.Errorf("%d entries of circuits are left at members", n)
		}
	})
}

// members counts the circuits as members have them: each twice.
func members(r *Relay) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.directory.byKey {
		n += len(m.circuits)
	}
	return n
}

func TestACircuitOutlivesNewKeysAndARestartOfAMember(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		for range 20 {
			advance(time.Minute)
			a.connect()
			b.connect()
			a.send(circuitData(ida, "still here"))
			b.wants(idb, "still here")
		}
	})
}

func TestACircuitThatNobodyUsesIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		stay := func(d time.Duration) { // online, and silent on the circuit
			for range d / time.Minute {
				advance(time.Minute)
				a.connect()
				b.connect()
			}
		}
		stay(circuitIdle - 2*time.Minute)
		b.send(circuitData(idb, "in use"))
		a.wants(ida, "in use")
		stay(circuitIdle - 2*time.Minute)
		if n := l.circuits(); n != 1 {
			t.Fatal("closed before its time")
		}
		a.told()
		b.told()
		advance(2*time.Minute + sweepEvery)
		if n := l.circuits() + members(l.relay); n != 0 {
			t.Errorf("%d entries are left", n)
		}
		wantsClosed(t, a, ida)
		wantsClosed(t, b, idb)
	})
}

func TestCircuitsOfAMemberAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.cfg.Limits.Circuits = 2
		a, b, c, d := l.member("a"), l.member("b"), l.member("c"), l.member("d")
		l.start()
		for _, m := range l.raws {
			m.connect()
		}
		ida, _ := join(a, b)
		join(a, c)
		if s := a.open(d.key.Public()).Status; s != wire.CircuitLimit {
			t.Errorf("one more than the limit: %v", s)
		}
		if s := d.open(a.key.Public()).Status; s != wire.CircuitLimit {
			t.Errorf("one more than the limit of the other end: %v", s)
		}
		if n := l.relay.Stats().Drops["circuit_limit"]; n != 2 {
			t.Errorf("%d refusals are counted, want 2", n)
		}
		if s := a.open(b.key.Public()).Status; s != wire.CircuitOK {
			t.Errorf("one that is there already: %v", s)
		}
		join(b, d) // others are not concerned
		a.sendControl(wire.CloseCircuit{Circuit: ida})
		join(a, d)
	})
}

func TestBytesOfAMemberAreLimited(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const perSecond = 1 << 20
		l.cfg.Limits.BytesPerSecond = perSecond
		a, b, ida, idb := joined(t, l)
		d := circuitData(ida, string(make([]byte, 1000)))
		send := func(bytes int) (arrived int) {
			for sent := 0; sent < bytes; sent += len(d) {
				a.send(d)
			}
			return len(b.takes(wire.KindCircuit)) * len(d)
		}
		if got := send(4 * perSecond); got > perSecond || got < perSecond-2*len(d) {
			t.Errorf("%d bytes at once, want %d", got, perSecond)
		}
		b.send(circuitData(idb, "b has a limit of its own"))
		a.wants(ida, "b has a limit of its own")
		sum := 0
		for range 10 {
			advance(100 * time.Millisecond)
			sum += send(perSecond)
		}
		if sum > perSecond || sum < perSecond*9/10 {
			t.Errorf("%d bytes in the second after, want %d", sum, perSecond)
		}
		if l.relay.Stats().Drops["limit"] == 0 {
			t.Error("what was beyond the limit is not counted")
		}
	})
}
