package relay

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/internal/heaptest"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

func TestStrangersCannotRelay(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		thief := l.stranger()
		if thief.connect() {
			t.Fatal("a stranger has a session")
		}
		inner := circuitData(ida, "x")[wire.CircuitOverhead:]
		for range 100 {
			var id wire.CircuitID
			for id == 0 {
				var random [8]byte
				rand.Read(random[:])
				id = wire.CircuitID(binary.BigEndian.Uint64(random[:]))
			}
			thief.send(circuitData(id, "a guess"))
			thief.send(circuitData(ida^1<<(id%64), "a near guess"))
			thief.send(circuitData(ida, "a known id"))
			thief.send(inner)
		}
		for _, m := range []*raw{a, b} {
			if got := m.takes(wire.KindCircuit); len(got) != 0 {
				t.Errorf("a member received %d datagrams of a stranger", len(got))
			}
		}
		if got := l.relay.Stats().Datagrams; got != 0 {
			t.Errorf("%d datagrams of a stranger were forwarded", got)
		}
		l.wantDrops("unknown_circuit", 200)
		l.wantDrops("moved", 100)
		a.send(circuitData(ida, "mine"))
		b.wants(idb, "mine")
	})
}

// forge makes initiations as anybody can who knows the relay's public key, each with a key of its own.
func (l *lab) forge(n int) (all [][]byte) {
	l.t.Helper()
	for range n {
		k, err := wire.GeneratePrivateKey(rand.Reader)
		if err != nil {
			l.t.Fatal(err)
		}
		local, err := wire.NewLocal(k)
		if err != nil {
			l.t.Fatal(err)
		}
		_, msg, err := local.Initiate(rand.Reader, l.key.Public(), wire.PresharedKey{}, 1, time.Now(), nil)
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

// fake is an address nobody has shown to be at; each n has another.
func fake(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(n >> 16), byte(n >> 8), byte(n)}), 7)
}

func TestAFloodOfHandshakesDoesNotStopForwarding(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, ida, idb := joined(t, l)
		forged := l.forge(200)
		var texts []string
		sources := 0
		for i := range 20 {
			for _, msg := range forged {
				l.net.Inject(fake(sources), l.addr, msg)
				sources++
			}
			texts = append(texts, fmt.Sprint("in the flood ", i))
			a.send(circuitData(ida, texts[i]))
		}
		b.wants(idb, texts...)
		if n := l.relay.Engine().Dropped(engine.DropUnknownKey) + l.relay.Engine().Dropped(engine.DropCookie); n == 0 {
			t.Error("there was no flood")
		}
		advance(time.Second)
		if !a.connect() {
			t.Error("a member gets no new session after the flood")
		}
	})
}

// entries counts what a relay and its engine remember: all elements of maps and slices, and what waits in
// channels.
func entries(r *Relay) map[string]int {
	synctest.Wait()
	all := make(map[string]int)
	seen := make(map[uintptr]bool)
	var walk func(where string, v reflect.Value)
	walk = func(where string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			ours := strings.HasPrefix(v.Type().Elem().PkgPath(), "github.com/adit-overlay/adit/")
			if !v.IsNil() && ours && !seen[v.Pointer()] {
				seen[v.Pointer()] = true
				walk(where, v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Type().String()+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Map:
			all[where] += v.Len()
			for it := v.MapRange(); it.Next(); {
				walk(where, it.Value())
			}
		case reflect.Slice:
			all[where] += v.Len()
			if v.Type().Elem().Kind() != reflect.Uint8 {
				for i := range v.Len() {
					walk(where, v.Index(i))
				}
			}
		case reflect.Chan:
			all[where] += v.Len()
		}
	}
	walk("relay", reflect.ValueOf(r))
	return all
}

// wantNoGrowth fails for everything of which more is remembered than before.
func wantNoGrowth(t *testing.T, r *Relay, before map[string]int) {
	t.Helper()
	for where, n := range entries(r) {
		if n > before[where] {
			t.Errorf("%s has %d entries, %d before", where, n, before[where])
		}
	}
}

func TestEntriesAreCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, _, _ := joined(t, l)
		n := entries(l.relay)
		for where, want := range map[string]int{
			"relay.circuits.byID":     2,
			"relay.member.circuits":   2,
			"relay.directory.byKey":   2,
			"engine.Engine.remotes":   2,
			"engine.indexes.sessions": 2,
		} {
			if n[where] != want {
				t.Errorf("%s: %d, want %d (%v)", where, n[where], want, n)
			}
		}
		a.connect()
		b.connect()
		if n := entries(l.relay)["engine.indexes.sessions"]; n != 4 {
			t.Errorf("%d sessions with the previous ones, want 4", n)
		}
	})
}

// strange makes the ith datagram of strangers who know one circuit: all that there is to send but handshakes, by turns.
func strange(i int, known wire.CircuitID) []byte {
	switch i % 4 {
	case 0:
		return circuitData(wire.CircuitID(i+1), "by a circuit that is not there")
	case 1:
		return circuitData(known, "by one that is another's")
	case 2:
		sealed := circuitData(1, "sealed for nobody")[wire.CircuitOverhead:]
		binary.BigEndian.PutUint32(sealed[4:], uint32(i))
		return sealed
	default:
		return []byte(fmt.Sprint("noise ", i))
	}
}

func TestStrangersLeaveNothingBehind(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const strangers = 10000
		a, b, ida, idb := joined(t, l)
		before := entries(l.relay)
		initiations := l.forge(20)
		for i := range strangers {
			d := strange(i, ida)
			if i%5 == 4 {
				d = initiations[i/5%len(initiations)]
			}
			l.net.Inject(fake(i), l.addr, d)
			if i%1000 == 0 {
				advance(time.Second)
			}
		}
		advance(10 * time.Second)
		wantNoGrowth(t, l.relay, before)
		a.send(circuitData(ida, "still here"))
		b.wants(idb, "still here")
	})
}

func TestCircuitsThatComeAndGoLeaveNothingBehind(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		hub := l.member("hub")
		var others []*raw
		for i := range 10 {
			others = append(others, l.member(fmt.Sprint("m", i)))
		}
		l.start()
		for _, m := range l.raws {
			m.connect()
		}
		before := entries(l.relay)
		for round := range 10 {
			for _, m := range others {
				id, _ := join(hub, m)
				if round%2 == 0 {
					hub.sendControl(wire.CloseCircuit{Circuit: id})
				}
			}
			if round%2 == 1 { // they end by being forgotten
				advance(wire.RejectAfter + sweepEvery)
				for _, m := range l.raws {
					m.connect()
				}
			}
		}
		advance(wire.KeepPrevious + sweepEvery)
		wantNoGrowth(t, l.relay, before)
		if n := l.circuits() + members(l.relay); n != 0 {
			t.Errorf("%d entries of circuits are left", n)
		}
	})
}

// TestHeapIsFlatAfterAMillionFakePeers: strangers, each at another address, do what they can, while a circuit comes and goes. What the
// relay's process holds in the end is what it held before. The network here holds nothing, so all there is, is the relay's.
func TestHeapIsFlatAfterAMillionFakePeers(t *testing.T) {
	peers := 1_000_000
	if testing.Short() || raceEnabled {
		peers = 100_000
	}
	s := newScript()
	r, c := scripted(t, 2, Limits{}, s)
	ab, _ := c[0].circuitTo(c[1])
	stranger, err := wire.NewLocal(wire.PrivateKey{1: 99, 31: 0x40})
	if err != nil {
		t.Fatal(err)
	}
	_, initiation, err := stranger.Initiate(nil, r.Engine().PublicKey(), wire.PresharedKey{}, 1, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	quiet := func() { // returns when all was received, and forgets the answers
		s.give()
		for {
			select {
			case <-s.out:
			default:
				return
			}
		}
	}
	const underLoad = 500 // initiations at once: so many that cookies are asked for
	churn := func(from, n int) {
		batch := make([]underlay.Message, 0, messagesPerReceive)
		for i := from; i < from+n; i++ {
			d := strange(i, ab)
			if i < underLoad || i%1000 == 0 {
				d = bytes.Clone(initiation)
			}
			batch = append(batch, underlay.Message{Buf: d, Seg: len(d), Addr: fake(i)})
			if len(batch) == cap(batch) {
				s.give(batch...)
				batch = make([]underlay.Message, 0, messagesPerReceive) // the other is the relay's now
			}
			if i%1000 == 999 {
				quiet()
			}
			if i%100_000 == 0 {
				r.mu.Lock()
				r.drop(r.circuits.lookup(ab).circuit)
				r.mu.Unlock()
				s.next(t) // both are told
				s.next(t)
				quiet()
				ab, _ = c[0].circuitTo(c[1])
			}
		}
		quiet()
	}
	churn(0, peers/20) // buffers grow to their sizes, and what a flood needs is made
	before := heaptest.InUse()
	churn(peers, peers)
	after := heaptest.InUse()
	t.Logf("%d KB before %d fake peers, %d KB after", before>>10, peers, after>>10)
	if after > before+256<<10 {
		t.Errorf("the memory in use grew from %d to %d bytes over %d fake peers", before, after, peers)
	}
	s.give(c[0].message(circuitData(ab, "still here")))
	if _, text := circuitText(s.next(t).Buf); text != "still here" {
		t.Errorf("a member's data arrives as %q", text)
	}
}
