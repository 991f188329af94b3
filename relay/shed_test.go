package relay

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A sieve is a carrier that sheds, as a UDP socket does, but for chance: of four messages it is to keep a quarter of, it keeps the fourth.
type sieve struct {
	underlay.Carrier
	fails error // what Shed returns

	mu     sync.Mutex
	calls  int
	sheds  []underlay.Shed
	due    map[netip.AddrPort]float64 // how much of a message is to be kept, by its address
	passed map[netip.AddrPort]int     // bytes
}

func newSieve(c underlay.Carrier) *sieve {
	return &sieve{Carrier: c, due: make(map[netip.AddrPort]float64), passed: make(map[netip.AddrPort]int)}
}

func (s *sieve) Shed(sheds []underlay.Shed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fails == nil {
		s.sheds = slices.Clone(sheds)
	}
	return s.fails
}

func (s *sieve) Receive(ms []underlay.Message) (int, error) {
	for {
		n, err := s.Carrier.Receive(ms)
		if err != nil {
			return 0, err
		}
		n = len(slices.DeleteFunc(ms[:n], func(m underlay.Message) bool { return !s.keeps(m) }))
		if n > 0 {
			return n, nil
		}
	}
}

func (s *sieve) keeps(m underlay.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.sheds {
		if d.From == m.Addr && d.Kind == m.Buf[0] {
			if s.due[m.Addr] += d.Keep; s.due[m.Addr] < 1 {
				return false
			}
			s.due[m.Addr]--
		}
	}
	s.passed[m.Addr] += len(m.Buf)
	return true
}

// asked returns what is to be shed now, and how often Shed was called.
func (s *sieve) asked() ([]underlay.Shed, int) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sheds, s.calls
}

func (s *sieve) bytesFrom(a netip.AddrPort) int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed[a]
}

// A torrent is circuit data of a member, as much as one message holds.
func torrent(r *raw, id wire.CircuitID) underlay.Message {
	d := circuitData(id, string(make([]byte, 1300)))
	return underlay.Message{Buf: bytes.Repeat(d, underlay.MaxMessage/len(d)), Seg: len(d), Addr: r.lab.addr}
}

// TestAMemberFarBeyondItsLimitIsShedAndNobodyElse: of sixty times what a member may send, most is not received, and the member still gets
// all of its limit. What it asks, and what another sends, arrives. When it has stopped, all it sends is received again.
func TestAMemberFarBeyondItsLimitIsShedAndNobodyElse(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const (
			perSecond = 1 << 20
			turn      = 10 * time.Millisecond
			wanted    = perSecond + shedSpare
		)
		var s *sieve
		var log bytes.Buffer
		l.dress = func(c underlay.Carrier) underlay.Carrier { s = newSieve(c); return s }
		l.cfg.Limits.BytesPerSecond = perSecond
		l.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		greedy, target, c, d := l.member("greedy"), l.member("target"), l.member("c"), l.member("d")
		l.startRelay()
		for _, m := range l.raws {
			m.connect()
		}
		id, _ := join(greedy, target)
		modest, modestAt := join(c, d)
		m := torrent(greedy, id)
		flood := func(rounds int) (sent int) {
			t.Helper()
			for range rounds {
				for range 10 {
					if err := greedy.wire.Send([]underlay.Message{m}); err != nil {
						t.Fatal(err)
					}
					sent += len(m.Buf)
				}
				c.send(circuitData(modest, "within the limit"))
				advance(turn)
				d.wants(modestAt, "within the limit")
			}
			return sent
		}
		flood(100) // also to use up what a limit lends at once
		before := s.bytesFrom(greedy.addr)
		target.takes(wire.KindCircuit)
		const second = int(time.Second / turn)
		sent := flood(second)
		if sent < 60*perSecond {
			t.Fatalf("the flood was %d bytes a second, want sixty times the limit", sent)
		}
		if n := s.bytesFrom(greedy.addr) - before; n > wanted*5/4 || n < wanted*3/4 {
			t.Errorf("%d of the %d bytes of the flood were received in a second, want about %d", n, sent, wanted)
		}
		if n := len(target.takes(wire.KindCircuit)) * m.Seg; n > perSecond+m.Seg || n < perSecond*9/10 {
			t.Errorf("%d bytes a second arrived of who may send %d", n, perSecond)
		}
		if got := greedy.lookup(wire.Lookup{By: wire.ByName, Name: "c"}); got.Status != wire.LookupFound {
			t.Errorf("who is shed asks: %v", got.Status)
		}
		if n := l.relay.Stats().Shed; n != 1 {
			t.Errorf("%d members are shed, want 1", n)
		}
		if n := strings.Count(log.String(), "member=greedy"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &log)
		}

		advance(time.Second)
		if sheds, _ := s.asked(); len(sheds) != 0 || l.relay.Stats().Shed != 0 {
			t.Errorf("a second after the flood, still shed: %v", sheds)
		}
		target.takes(wire.KindCircuit)
		for range 100 {
			greedy.send(circuitData(id, "again"))
		}
		if n := len(target.takes(wire.KindCircuit)); n != 100 {
			t.Errorf("after the flood %d of 100 datagrams arrived", n)
		}
		_, calls := s.asked()
		advance(time.Minute)
		if _, again := s.asked(); again != calls {
			t.Errorf("%d more calls of Shed when nobody was beyond a limit", again-calls)
		}
	})
}

// TestACarrierThatCannotShedIsAskedOnce: what is beyond the limit is received and dropped, as ever.
func TestACarrierThatCannotShedIsAskedOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		var s *sieve
		l.dress = func(c underlay.Carrier) underlay.Carrier { s = newSieve(c); s.fails = errors.ErrUnsupported; return s }
		l.cfg.Limits.BytesPerSecond = 1 << 20
		a, b, id, _ := joined(t, l)
		m := torrent(a, id)
		for range 50 {
			for range 10 {
				if err := a.wire.Send([]underlay.Message{m}); err != nil {
					t.Fatal(err)
				}
			}
			advance(10 * time.Millisecond)
		}
		if _, calls := s.asked(); calls != 1 {
			t.Errorf("asked %d times, want once", calls)
		}
		if n := l.relay.Stats().Shed; n != 0 {
			t.Errorf("%d members are said to be shed", n)
		}
		if len(b.takes(wire.KindCircuit)) == 0 || l.relay.Stats().Drops["limit"] == 0 {
			t.Errorf("nothing arrived, or nothing was dropped: %v", l.relay.Stats().Drops)
		}
	})
}

// TestThoseFurthestBeyondTheirLimitAreShed: more members are than a carrier sheds, and many more a little beyond their limit, which is
// no reason.
func TestThoseFurthestBeyondTheirLimitAreShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		r, err := New(Config{Engine: engine.Config{PrivateKey: wire.PrivateKey{31: 0x40}}, Limits: Limits{BytesPerSecond: limit}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c := newSieve(nil)
		var s shedder
		s.init(r, c)
		at := func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2 + byte(i>>8), byte(i)}), 5040)
		}
		const crowd, foes = 1000, underlay.MaxSheds + 10
		for range 10 {
			for i := range crowd {
				n := limit / 20
				if i < foes {
					n = (10 + i) * shedSpare / 20
				}
				s.exceeded(&member{}, at(i), n, time.Now())
			}
			advance(shedEvery)
		}
		var got []netip.AddrPort
		sheds, _ := c.asked()
		for _, d := range sheds {
			got = append(got, d.From)
		}
		want := make(map[netip.AddrPort]bool)
		for i := foes - underlay.MaxSheds; i < foes; i++ {
			want[at(i)] = true
		}
		if len(got) != len(want) || slices.ContainsFunc(got, func(a netip.AddrPort) bool { return !want[a] }) {
			t.Errorf("shed are %v, want %v", got, slices.Collect(maps.Keys(want)))
		}
		advance(time.Minute)
		sheds, _ = c.asked()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.shed != 0 || len(sheds) != 0 || len(s.excess) != 0 {
			t.Errorf("a minute later %d are shed, %d of them by the carrier, and %d remembered", s.shed, len(sheds), len(s.excess))
		}
	})
}
