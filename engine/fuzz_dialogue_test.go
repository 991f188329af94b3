package engine

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// A stage is two nodes and somebody between them who sees, drops, repeats and changes what they send.
type stage struct {
	t    *testing.T
	l    *lab
	a, b *node

	sent    [2]map[string]bool // texts that a, and b, gave
	got     [2]map[string]int  // texts that a, and b, received
	rebound uint16             // how often a has moved
	twice   bool               // a notice went by, or was forged: what was sent just before may be sent again (§19)

	mu       sync.Mutex
	drop     int // of the next datagrams
	recorded []parcel
	counters map[counterUse]bool
	fault    string
}

type parcel struct {
	from, to netip.AddrPort
	datagram []byte
}

type counterUse struct {
	from    netip.Addr
	index   wire.Index
	counter uint64
}

func newStage(t *testing.T, l *lab) *stage {
	s := &stage{t: t, l: l, counters: make(map[counterUse]bool)}
	for i := range s.sent {
		s.sent[i], s.got[i] = make(map[string]bool), make(map[string]int)
	}
	l.net.SetTap(s.tap)
	s.a, s.b = l.node("a"), l.node("b")
	s.a.knows(s.b, at(s.b))
	s.b.knows(s.a, "")
	return s
}

// tap sees what a and b themselves send.
func (s *stage) tap(from, to netip.AddrPort, d []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := wire.ParseData(d); ok {
		use := counterUse{from.Addr(), h.Receiver, h.Counter}
		if s.counters[use] {
			s.fault = fmt.Sprintf("%v sealed twice under counter %d for index %d", from, h.Counter, h.Receiver)
		}
		s.counters[use] = true
	}
	if wire.KindOf(d) == wire.KindNotice {
		s.twice = true
	}
	if to != s.a.addr && to != s.b.addr && to.Addr() != s.a.addr.Addr() && wire.KindOf(d) == wire.KindData {
		s.fault = fmt.Sprintf("data was sent to %v", to)
	}
	if s.drop > 0 {
		s.drop--
		return nil
	}
	// Only what arrives: who can hold data up and send it on itself is on the path, and may well be where it leads.
	if len(s.recorded) < 256 {
		s.recorded = append(s.recorded, parcel{from, to, bytes.Clone(d)})
	}
	return d
}

// lose has the next n datagrams lost.
func (s *stage) lose(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = n
}

// step does what two bytes say.
func (s *stage) step(what, how byte) {
	n, other, who := s.a, s.b, 0
	if how&1 != 0 {
		n, other, who = s.b, s.a, 1
	}
	s.mu.Lock()
	recorded := parcel{s.a.addr, s.b.addr, []byte{0}}
	if k := len(s.recorded); k > 0 {
		recorded = s.recorded[int(how)%k]
	}
	s.mu.Unlock()
	switch what % 14 {
	case 0, 1:
		text := fmt.Sprint("text ", len(s.sent[who]), " of ", n.name)
		s.sent[who][text] = true
		n.send(other, text)
	case 2:
		time.Sleep(time.Duration(how) * 10 * time.Millisecond)
	case 3:
		time.Sleep(time.Duration(how) * 3 * time.Second)
	case 4:
		s.lose(int(how % 8))
	case 5: // again, as it was
		s.l.net.Inject(recorded.from, recorded.to, recorded.datagram)
	case 6: // again, from elsewhere
		s.l.net.Inject(attacker, recorded.to, recorded.datagram)
	case 7: // changed
		d := bytes.Clone(recorded.datagram)
		d[int(how)*7%len(d)] ^= 1 << (how % 8)
		s.l.net.Inject(recorded.from, recorded.to, d)
	case 8: // back to who sent it
		s.l.net.Inject(recorded.to, recorded.from, recorded.datagram)
	case 9: // a notice about the session in use
		if session := n.sessionWith(other); session != nil {
			s.twice = true
			from := other.addr
			if how&2 != 0 {
				from = attacker
			}
			s.l.net.Inject(from, n.addr, wire.AppendNotice(nil, session.peer))
		}
	case 10: // nearly all counters used
		if session := n.sessionWith(other); session != nil {
			limit := wire.RekeyAfterPackets
			if how&2 != 0 {
				limit = wire.RejectAfterPackets
			}
			if left := limit - 2 - int(session.sealer.Reserved()); left > 0 {
				session.sealer.Reserve(left)
			}
		}
	case 11:
		s.rebound++
		s.a.wire.Rebind(netip.AddrPortFrom(s.a.addr.Addr(), 6000+s.rebound))
	case 12:
		s.restart(n)
	case 13: // cut off while time passes
		s.lose(1 << 30)
		time.Sleep(time.Duration(how) * 100 * time.Millisecond)
		s.lose(0)
	}
	s.check()
}

func (s *stage) restart(n *node) {
	synctest.Wait()
	s.take()
	n.stop()
	n.start()
	if n == s.a {
		s.a.knows(s.b, at(s.b))
	} else {
		s.b.knows(s.a, "")
	}
}

func (s *stage) take() {
	for i, n := range []*node{s.a, s.b} {
		for _, text := range n.dev.texts() {
			s.got[i][text]++
		}
	}
}

// check is what holds at all times.
func (s *stage) check() {
	s.t.Helper()
	synctest.Wait()
	s.take()
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != "" {
		s.t.Fatal(fault)
	}
	most := 1
	if s.twice {
		most = 2
	}
	for i, n := range []*node{s.a, s.b} {
		for text, times := range s.got[i] {
			if !s.sent[1-i][text] && len(text) > 4 && text[:4] == "text" {
				s.t.Fatalf("%s received %q, which nobody sent it", n.name, text)
			}
			if times > most && text[:4] == "text" {
				s.t.Fatalf("%s received %q %d times", n.name, text, times)
			}
		}
		sessions, former := n.held()
		if pending := len(n.engine.indexes.pending); sessions > 3 || former > maxFormer || pending > 1+maxEarlier {
			s.t.Fatalf("%s holds %d sessions, %d former ones and %d initiations", n.name, sessions, former, pending)
		}
		for _, r := range n.engine.Remotes() {
			if p := r.path.Load(); p != nil && p.addr.Addr() == attacker.Addr() {
				s.t.Fatalf("the path of %s leads to %v", n.name, p.addr)
			}
		}
	}
}

// FuzzDialogue takes its input for what happens to two nodes, step by step: packets, loss, recordings, forgeries, time, counters that
// run out, restarts. What must hold always, holds after each step; and when all that is over, they talk.
func FuzzDialogue(f *testing.F) {
	for _, seed := range []string{
		"\x00\x00\x01\x01\x02\x64\x00\x00",                         // they talk
		"\x04\x01\x00\x00\x02\x96\x05\x00\x06\x00\x07\x01\x08\x00", // message one lost, sent again, from elsewhere, changed, back
		"\x00\x00\x03\x70\x00\x00\x05\x03\x06\x04\x03\x70\x05\x05", // rekeys, and what was before them
		"\x00\x00\x0c\x01\x00\x00\x01\x01\x0c\x00\x01\x01",         // restarts
		"\x00\x00\x0a\x00\x00\x00\x0a\x02\x00\x00\x00\x00\x02\xff", // counters run out
		"\x00\x00\x0b\x00\x00\x00\x01\x01\x06\x02\x0b\x00",         // a moves
		"\x00\x00\x04\x07\x00\x00\x09\x00\x09\x02\x00\x00\x02\xff", // notices while all is lost
		"\x00\x00\x0d\xff\x00\x00\x01\x01\x03\xff\x01\x01",         // cut off, and all keys grow old
	} {
		f.Add([]byte(seed))
	}
	const steps = 30
	f.Fuzz(func(t *testing.T, script []byte) {
		inFakeTime(t, func(t *testing.T, l *lab) {
			s := newStage(t, l)
			synctest.Wait()
			for i := 0; i+1 < len(script) && i < 2*steps; i += 2 {
				s.step(script[i], script[i+1])
			}
			s.lose(0)
			advance(defaultKeepalive + 15*time.Second) // whoever has said nothing says something, and finds the other restarted
			s.check()
			wantsOneSession(s.a, s.b)
			s.a.send(s.b, "ping")
			s.b.wants("ping")
			s.b.send(s.a, "pong")
			s.a.wants("pong")
		})
	})
}
