package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// describe names a message: for circuit data the ids' names and texts of its datagrams.
func describe(m underlay.Message, names map[wire.CircuitID]string) string {
	var all []string
	for b := m.Buf; len(b) > 0; b = b[min(m.Seg, len(b)):] {
		id, text := circuitText(b[:min(m.Seg, len(b))])
		all = append(all, names[id]+" "+text)
	}
	return fmt.Sprintf("to %v: %s", m.Addr.Addr(), strings.Join(all, ", "))
}

func TestAMessageIsForwardedAsOneMessage(t *testing.T) {
	s := newScript()
	_, c := scripted(t, 2, Limits{}, s)
	ab, ba := c[0].circuitTo(c[1])
	for _, test := range []struct {
		name  string
		sizes []int
	}{
		{"one datagram", []int{100}},
		{"45 full datagrams", slices.Repeat([]int{1400}, 45)},
		{"the last one shorter", append(slices.Repeat([]int{1000}, 9), 10)},
		{"the last one without anything", []int{500, 0}},
		{"the shortest, as many as fit", slices.Repeat([]int{0}, underlay.MaxSegments)},
	} {
		var in, want [][]byte
		for i, n := range test.sizes {
			text := strings.Repeat(string(rune('A'+i%26)), n)
			in = append(in, circuitData(ab, text))
			want = append(want, circuitData(ba, text))
		}
		m := c[0].message(in...)
		s.give(m)
		got := s.next(t)
		if got.Seg != m.Seg || got.Addr != c[1].addr || !bytes.Equal(got.Buf, bytes.Join(want, nil)) {
			t.Errorf("%s: %d bytes in segments of %d to %v; want %d of %d to %v", test.name,
				len(got.Buf), got.Seg, got.Addr, len(m.Buf), m.Seg, c[1].addr)
		}
	}
	if len(s.out) != 0 {
		t.Errorf("%d messages more than were given", len(s.out))
	}
}

// Datagrams of several circuits and of none, in one message, go their ways in order.
func TestMixedRunsAreSplitInOrder(t *testing.T) {
	s := newScript()
	_, c := scripted(t, 3, Limits{}, s)
	ab, ba := c[0].circuitTo(c[1])
	ac, ca := c[0].circuitTo(c[2])
	names := map[wire.CircuitID]string{ba: "a-b", ca: "a-c"}
	question := c[0].seal(wire.Lookup{By: wire.ByName, Name: "nobody-at-all"})
	pad := strings.Repeat(".", len(question)-wire.DataOverhead-wire.CircuitOverhead-1)
	d := func(id wire.CircuitID, text string) []byte { return circuitData(id, text+pad) }
	last := circuitData(ac, "")
	s.give(
		c[0].message(d(ab, "1"), d(ab, "2"), question, d(ab, "3"), d(ac, "4"), d(ac, "5"), last),
		c[0].message(d(ab, "6")),
		c[0].message(c[0].probe()),
	)
	var got []string
	for range 4 {
		got = append(got, strings.ReplaceAll(describe(s.next(t), names), pad, ""))
	}
	want := []string{
		"to 192.0.2.2: a-b 1, a-b 2",
		"to 192.0.2.2: a-b 3",
		"to 192.0.2.3: a-c 4, a-c 5, a-c ",
		"to 192.0.2.2: a-b 6",
	}
	if !slices.Equal(got, want) {
		t.Errorf("forwarded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if a, ok := c[0].open(s.next(t).Buf).(wire.LookupReply); !ok || a.Status != wire.LookupNotFound {
		t.Errorf("the question within the first message: %+v", a)
	}
	if _, ok := c[0].open(s.next(t).Buf).(wire.ProbeReply); !ok {
		t.Error("the probe in the last message was not answered")
	}
}

// What must not be fragmented before the relay must not behind it; what comes with it may, and goes as ever, in order.
func TestAWholeDatagramIsForwardedWhole(t *testing.T) {
	s := newScript()
	r, c := scripted(t, 2, Limits{}, s)
	ab, ba := c[0].circuitTo(c[1])
	whole := func(id wire.CircuitID, text string) []byte {
		b := circuitData(id, text)
		wire.SetWhole(b)
		return b
	}
	s.give(c[0].message(circuitData(ab, "1"), circuitData(ab, "2"), whole(ab, "3"), whole(ab, "4"), circuitData(ab, "5")))
	for _, want := range [][]byte{
		append(circuitData(ba, "1"), circuitData(ba, "2")...), whole(ba, "3"), whole(ba, "4"), circuitData(ba, "5"),
	} {
		if got := s.next(t); !bytes.Equal(got.Buf, want) || got.Addr != c[1].addr {
			t.Errorf("forwarded %x to %v, want %x", got.Buf, got.Addr, want)
		}
	}
	if n := s.probes.Load(); n != 2 {
		t.Errorf("%d were sent so that they arrive whole, want 2", n)
	}
	for range 10 { // such datagrams cost more, so there are only so many
		var many [][]byte
		for range underlay.MaxSegments {
			many = append(many, whole(ab, ""))
		}
		s.give(c[0].message(many...))
	}
	s.give(c[0].message(circuitData(ab, "done")))
	for {
		if _, text := circuitText(s.next(t).Buf); text == "done" {
			break
		}
	}
	if n := s.probes.Load(); n < probesPerSecond || n > 2*probesPerSecond {
		t.Errorf("%d of 640 at once were sent, want about %d", n, probesPerSecond)
	}
	if n := r.Stats().Drops["limit"]; n == 0 {
		t.Error("nothing says that others were not")
	}
}

// However often circuits and the engine take turns in a message, each gets all that is its own.
func TestTheEngineGetsMoreRunsThanItAsksFor(t *testing.T) {
	s := newScript()
	_, c := scripted(t, 2, Limits{}, s)
	ab, _ := c[0].circuitTo(c[1])
	const turns = 3 * messagesPerReceive
	var in [][]byte
	for range turns {
		question := c[0].seal(wire.Lookup{By: wire.ByName, Name: "nobody-at-all"})
		in = append(in, question, circuitData(ab, strings.Repeat("x", len(question)-wire.DataOverhead-wire.CircuitOverhead)))
	}
	s.give(c[0].message(in...))
	forwarded, answered := 0, 0
	for range 2 * turns {
		if m := s.next(t); wire.KindOf(m.Buf[:m.Seg]) == wire.KindCircuit {
			forwarded += int(segments(m))
		} else if _, ok := c[0].open(m.Buf).(wire.LookupReply); ok {
			answered++
		}
	}
	if forwarded != turns || answered != turns {
		t.Errorf("%d forwarded and %d answered, want %d of each", forwarded, answered, turns)
	}
}

func TestMembersOnDifferentCarriersReachEachOther(t *testing.T) {
	s1, s2 := newScript(), newScript()
	r, c := scripted(t, 4, Limits{}, s1, s2) // 0 and 2 on the first, 1 and 3 on the second
	id01, id10 := c[0].circuitTo(c[1])
	id02, id20 := c[0].circuitTo(c[2])
	names := map[wire.CircuitID]string{id10: "0-1", id20: "0-2", id01: "1-0"}
	s1.give(
		c[0].message(circuitData(id01, "a")), c[0].message(circuitData(id02, "b")),
		c[0].message(circuitData(id02, "c")), c[0].message(circuitData(id01, "d")),
	)
	for _, want := range []string{"to 192.0.2.2: 0-1 a", "to 192.0.2.2: 0-1 d"} {
		if got := describe(s2.next(t), names); got != want {
			t.Errorf("on the second carrier %q, want %q", got, want)
		}
	}
	for _, want := range []string{"to 192.0.2.3: 0-2 b", "to 192.0.2.3: 0-2 c"} {
		if got := describe(s1.next(t), names); got != want {
			t.Errorf("on the first carrier %q, want %q", got, want)
		}
	}
	s2.give(c[1].message(circuitData(id10, "back")))
	if got := describe(s1.next(t), names); got != "to 192.0.2.1: 1-0 back" {
		t.Errorf("back: %q", got)
	}
	// The right address on the wrong carrier is another address.
	s2.give(c[0].message(circuitData(id01, "x")))
	if code, _, ok := wire.ParseCircuitNotice(s2.next(t).Buf); !ok || code != wire.CircuitMoved {
		t.Errorf("circuit data by another carrier earned %v", code)
	}
	if got := r.Stats().Drops["moved"]; got != 1 {
		t.Errorf("%d datagrams counted as moved", got)
	}
}

// Carriers forward to each other at the same time, while circuits come and go. The race detector watches.
func TestCarriersForwardAtOnce(t *testing.T) {
	s := [2]*script{newScript(), newScript()}
	r, c := scripted(t, 4, Limits{BytesPerSecond: 1 << 30}, s[0], s[1])
	ab, ba := c[0].circuitTo(c[1])
	const messages, churn = 500, 50
	other := c[3].key.Public()
	var openings [][]byte
	for range churn {
		openings = append(openings, c[2].seal(wire.OpenCircuit{Remote: other}))
	}
	var wg sync.WaitGroup
	for i, id := range []wire.CircuitID{ab, ba} {
		wg.Go(func() {
			for n := range messages {
				s[i].give(fullMessage(c[i], id, 3, 100))
				if i == 0 && n%(messages/churn) == 0 {
					s[0].give(c[2].message(openings[n/(messages/churn)]))
					r.mu.Lock()
					for _, k := range r.directory.byKey[other].circuits {
						r.drop(k)
					}
					r.mu.Unlock()
				}
			}
		})
	}
	forwarded := [2]int{}
	for i := range s {
		wg.Go(func() {
			for forwarded[i] < 3*messages {
				if m := s[i].next(t); wire.KindOf(m.Buf[:m.Seg]) == wire.KindCircuit {
					forwarded[i] += int(segments(m))
				}
			}
		})
	}
	wg.Wait()
	if got := r.Stats().Datagrams; got != 2*3*messages {
		t.Errorf("%d datagrams forwarded, want %d", got, 2*3*messages)
	}
}

// What a limit leaves of a message is forwarded.
func TestTheLimitOfBytesCutsAMessage(t *testing.T) {
	s := newScript()
	r, c := scripted(t, 2, Limits{BytesPerSecond: 1}, s) // and 128 KiB at once
	ab, _ := c[0].circuitTo(c[1])
	d := circuitData(ab, strings.Repeat("x", 1444-wire.CircuitOverhead-wire.DataOverhead))
	m := c[0].message(slices.Repeat([][]byte{d}, 45)...)
	full := func() underlay.Message { m.Buf = bytes.Join(slices.Repeat([][]byte{d}, 45), nil); return m }
	s.give(full())
	s.give(full())
	s.give(full())
	s.next(t)
	s.next(t)
	if left := (1<<17 - 2*len(m.Buf)) / len(d) * len(d); left != 0 {
		if got := s.next(t); len(got.Buf) != left || got.Seg != m.Seg {
			t.Errorf("%d bytes of the last message, want %d", len(got.Buf), left)
		}
	}
	s.give(full())
	s.give(c[0].message(c[0].probe()))
	if _, ok := c[0].open(s.next(t).Buf).(wire.ProbeReply); !ok {
		t.Error("something was forwarded beyond the limit")
	}
	if st := r.Stats(); st.Datagrams+st.Drops["limit"] != 4*45 {
		t.Errorf("%d forwarded and %d dropped, of %d", st.Datagrams, st.Drops["limit"], 4*45)
	}
}

func TestCircuitDataThatIsMalformedIsDropped(t *testing.T) {
	s := newScript()
	r, c := scripted(t, 2, Limits{}, s)
	ab, _ := c[0].circuitTo(c[1])
	good := circuitData(ab, "x")
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	nested := func(kind wire.Kind) []byte {
		b := make([]byte, wire.CircuitOverhead, 100)
		wire.PutCircuit(b, ab)
		return append(append(b, good...), byte(kind))
	}
	bad := [][]byte{
		change(1, 2), change(2, 1), change(3, 1), // an unknown flag, bytes that are zero
		change(wire.CircuitOverhead, byte(wire.KindCircuit)), // a circuit in a circuit
		change(wire.CircuitOverhead, byte(wire.KindCircuitNotice)),
		change(wire.CircuitOverhead, 0),
		nested(wire.KindCircuit),
		good[:wire.CircuitOverhead+wire.NoticeLen-1],
		circuitData(0, "x"),
		{byte(wire.KindCircuit)},
	}
	for _, b := range bad {
		s.give(c[0].message(b))
	}
	s.give(c[0].message(c[0].probe()))
	if _, ok := c[0].open(s.next(t).Buf).(wire.ProbeReply); !ok {
		t.Error("something was forwarded")
	}
	if n := r.Engine().Dropped(engine.DropMalformed); n != uint64(len(bad)) {
		t.Errorf("%d datagrams counted as malformed, want %d", n, len(bad))
	}
	if st := r.Stats(); st.Datagrams != 0 {
		t.Errorf("%d datagrams forwarded", st.Datagrams)
	}
}

// fullMessage is n datagrams of size bytes by a circuit.
func fullMessage(c *client, id wire.CircuitID, n, size int) underlay.Message {
	d := circuitData(id, strings.Repeat("x", size-wire.CircuitOverhead-wire.DataOverhead))
	return c.message(slices.Repeat([][]byte{d}, n)...)
}

// direct returns a function that has the forwarder receive ms, and forward them, without the engine.
// The ids are written anew each time, as forwarding changes them in place.
func direct(tb testing.TB, r *Relay, c *client, ms []underlay.Message, ids []wire.CircuitID) func() {
	f := forwarderOf(r, c)
	at := c.at.(*script)
	at.park()
	at.discard = true
	in := make([]underlay.Message, messagesPerReceive)
	return func() {
		for i, m := range ms {
			for at := 0; at < len(m.Buf); at += m.Seg {
				wire.SetCircuit(m.Buf[at:], ids[i])
			}
		}
		at.direct = ms
		if n, err := f.Receive(in); n != 0 || !errors.Is(err, errScriptEnded) {
			tb.Fatalf("%d messages were left to the engine, %v", n, err)
		}
	}
}

func TestForwardingAllocatesNothing(t *testing.T) {
	s := newScript()
	r, c := scripted(t, 3, Limits{BytesPerSecond: 1 << 30}, s)
	ab, _ := c[0].circuitTo(c[1])
	ac, _ := c[0].circuitTo(c[2])
	ms := []underlay.Message{fullMessage(c[0], ab, 45, 1444), fullMessage(c[0], ac, 64, 64), fullMessage(c[0], ab, 1, 64)}
	forward := direct(t, r, c[0], ms, []wire.CircuitID{ab, ac, ab})
	forward()
	before := r.Stats().Datagrams
	const runs = 100
	if n := testing.AllocsPerRun(runs, forward); n != 0 {
		t.Errorf("%v allocations for %d messages", n, len(ms))
	}
	if got := r.Stats().Datagrams - before; got != (runs+1)*(45+64+1) {
		t.Errorf("%d datagrams forwarded, want %d", got, (runs+1)*(45+64+1))
	}
}

// Neither do datagrams that are not forwarded, once their sender has been told.
func TestAFloodAllocatesNothing(t *testing.T) {
	s := newScript()
	r, c := scripted(t, 2, Limits{}, s)
	ab, _ := c[0].circuitTo(c[1])
	forged := fullMessage(c[0], 99, 64, 64)
	stolen := fullMessage(c[1], ab, 64, 64)
	forward := direct(t, r, c[0], []underlay.Message{forged, stolen}, []wire.CircuitID{99, ab})
	for range 100 {
		forward()
	}
	if n := testing.AllocsPerRun(100, forward); n >= 1 {
		t.Errorf("%v allocations", n)
	}
	if got := r.Stats().Datagrams; got != 0 {
		t.Errorf("%d datagrams forwarded", got)
	}
}

// Whatever arrives, from whoever: nothing panics, and only what a member sends by its own
// circuit, from its own address, is forwarded, as it was but for the id.
func FuzzForwarder(f *testing.F) {
	f.Add([]byte{0, 0, 20, 6, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 12, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{1, 1, 44, 'c', 4, 0, 0, 0, 'x'})
	f.Add(append([]byte{3, 0, 64}, bytes.Repeat([]byte{'c'}, 300)...))
	s := newScript()
	r, c := scripted(f, 2, Limits{}, s)
	ab, ba := c[0].circuitTo(c[1])
	forwarder := forwarderOf(r, c[0])
	s.park()
	s.discard = true
	capture := &captureCarrier{script: s}
	forwarder.Carrier = capture
	for _, id := range []wire.CircuitID{ab, ba} {
		r.circuits.lookup(id).probes.SetLimit(rate.Inf)
	}
	addrs := []underlay.Message{{Addr: c[0].addr}, {Addr: c[1].addr}, {Addr: netip.MustParseAddrPort("203.0.113.9:9")}}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in []underlay.Message
		for len(data) > 3 && len(in) < messagesPerReceive {
			who, seg, n := int(data[0])%len(addrs), 1+int(data[1]), int(data[2])
			data = data[3:]
			n = min(max(n, 1), len(data))
			buf := bytes.Clone(data[:n])
			data = data[n:]
			if buf[0] == 'c' { // a start at what is right, which chance does not find
				b := circuitData([]wire.CircuitID{ab, ba}[n&1], "")
				buf = append(b[:wire.CircuitOverhead:wire.CircuitOverhead], buf...)
				buf[wire.CircuitOverhead] = byte(wire.KindData)
				seg = max(seg, wire.CircuitOverhead)
			}
			in = append(in, underlay.Message{Buf: buf, Seg: min(seg, len(buf)), Addr: addrs[who].Addr})
		}
		var want []string
		for _, m := range in {
			for b := m.Buf; len(b) > 0; b = b[min(m.Seg, len(b)):] {
				d := bytes.Clone(b[:min(m.Seg, len(b))])
				id, _, ok := wire.ParseCircuit(d)
				switch {
				case !ok:
				case id == ab && m.Addr == c[0].addr:
					binary.BigEndian.PutUint64(d[4:], uint64(ba))
					want = append(want, c[1].addr.String()+string(d))
				case id == ba && m.Addr == c[1].addr:
					binary.BigEndian.PutUint64(d[4:], uint64(ab))
					want = append(want, c[0].addr.String()+string(d))
				}
			}
		}
		s.direct, capture.sent = in, nil
		var rest [messagesPerReceive]underlay.Message
		for {
			n, err := forwarder.Receive(rest[:])
			if err != nil {
				break
			}
			for _, m := range rest[:n] {
				if m.Seg < 1 || m.Seg > len(m.Buf) {
					t.Fatalf("a message of %d bytes in segments of %d", len(m.Buf), m.Seg)
				}
				if _, _, ok := wire.ParseCircuit(m.Buf[:m.Seg]); ok {
					t.Fatal("circuit data was left to the engine")
				}
			}
		}
		if !slices.Equal(capture.sent, want) {
			t.Fatalf("forwarded %q, want %q", capture.sent, want)
		}
	})
}

// A captureCarrier keeps the datagrams sent but notices, each behind its address.
type captureCarrier struct {
	*script
	sent []string
}

func (c *captureCarrier) Probe(m underlay.Message) error { return c.Send([]underlay.Message{m}) }

func (c *captureCarrier) Send(ms []underlay.Message) error {
	for _, m := range ms {
		for b := m.Buf; len(b) > 0; b = b[min(m.Seg, len(b)):] {
			if d := b[:min(m.Seg, len(b))]; wire.KindOf(d) != wire.KindCircuitNotice {
				c.sent = append(c.sent, m.Addr.String()+string(d))
			}
		}
	}
	return nil
}
