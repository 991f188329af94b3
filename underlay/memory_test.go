package underlay

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:5040")
	addrB = netip.MustParseAddrPort("192.0.2.2:5040")
	addrC = netip.MustParseAddrPort("[2001:db8::3]:5040")
)

// memoryTest is a network with two nodes, in fake time.
type memoryTest struct {
	*testing.T
	net  *Memory
	a, b *Node
}

func inMemory(t *testing.T, cfg MemoryConfig, f func(m *memoryTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &memoryTest{T: t, net: NewMemory(cfg)}
		m.a, m.b = m.attach(addrA), m.attach(addrB)
		f(m)
	})
}

func (m *memoryTest) attach(addr netip.AddrPort) *Node {
	m.Helper()
	n, err := m.net.Attach(addr)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { n.Close() })
	return n
}

// send sends datagrams that tell a number, from a to b.
func (m *memoryTest) send(numbers ...int) {
	m.Helper()
	for _, n := range numbers {
		d := fmt.Appendf(nil, "%05d", n)
		if err := m.a.Send([]Message{{Buf: d, Seg: len(d), Addr: addrB}}); err != nil {
			m.Fatal(err)
		}
	}
}

// arrived returns what is there to be read at n by now.
func arrived(n *Node) []string {
	synctest.Wait()
	n.net.mu.Lock()
	waiting := len(n.arriving.items) + len(n.reading.items) - n.reading.next
	n.net.mu.Unlock()
	var ds []string
	ms := make([]Message, 1)
	for len(ds) < waiting {
		if _, err := n.Receive(ms); err != nil {
			panic(err)
		}
		for b := ms[0].Buf; len(b) > 0; {
			k := min(ms[0].Seg, len(b))
			ds = append(ds, string(b[:k]))
			b = b[k:]
		}
	}
	return ds
}

func (m *memoryTest) want(numbers ...int) {
	m.Helper()
	var want []string
	for _, n := range numbers {
		want = append(want, fmt.Sprintf("%05d", n))
	}
	if got := arrived(m.b); !slices.Equal(got, want) {
		m.Fatalf("arrived %v, want %v", got, want)
	}
}

func (m *memoryTest) advance(d time.Duration) { <-time.After(d) }

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestMemoryDelay(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: 30 * time.Millisecond}}, func(m *memoryTest) {
		m.send(upTo(100)...)
		m.advance(20 * time.Millisecond)
		m.send(100)
		m.advance(10*time.Millisecond - 1)
		m.want()
		m.advance(1)
		m.want(upTo(100)...) // all due at one time, and still in order
		m.advance(20 * time.Millisecond)
		m.want(100)
		if n := m.net.flight.bytes; n != 0 {
			t.Errorf("%d bytes are counted as on their way, want 0", n)
		}
	})
}

// A datagram that is due sooner than those before it is not held up by them.
func TestMemoryDelayIsChanged(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: time.Second}}, func(m *memoryTest) {
		m.send(1)
		m.net.SetLink(addrA, addrB, Link{Delay: time.Millisecond})
		m.send(2)
		m.net.SetLink(addrA, addrB, Link{})
		m.send(3)
		m.want(3)
		m.advance(time.Millisecond)
		m.want(2)
		m.advance(time.Second)
		m.want(1)
	})
}

func TestMemoryChance(t *testing.T) {
	const total = 2000
	run := func(t *testing.T, seed uint64, l Link) (got []string, stats MemoryStats) {
		inMemory(t, MemoryConfig{Seed: seed, Link: l}, func(m *memoryTest) {
			m.send(upTo(total)...)
			m.advance(time.Minute)
			got, stats = arrived(m.b), m.net.Stats()
		})
		return got, stats
	}
	sent := make([]string, total)
	for i := range sent {
		sent[i] = fmt.Sprintf("%05d", i)
	}
	about := func(t *testing.T, what string, n uint64, share float64) {
		t.Helper()
		if f := float64(n) / total; f < share*0.7 || f > share*1.3 {
			t.Errorf("%s: %d of %d, want about %v", what, n, total, share)
		}
	}
	for _, test := range []struct {
		name  string
		link  Link
		check func(t *testing.T, got []string, s MemoryStats)
	}{
		{"loss", Link{Loss: 0.1}, func(t *testing.T, got []string, s MemoryStats) {
			about(t, "lost", s.Lost, 0.1)
			if len(got) != total-int(s.Lost) || !slices.IsSorted(got) {
				t.Error("what was not lost did not arrive in order")
			}
		}},
		{"bursts", Link{Burst: Burst{Begin: 0.05, End: 0.25}}, func(t *testing.T, got []string, s MemoryStats) {
			about(t, "lost", s.Lost, 0.05/(0.05+0.25))
			rows := 0
			for i, lost := 0, false; i < total; i++ {
				_, there := slices.BinarySearch(got, sent[i])
				if !there && !lost {
					rows++
				}
				lost = !there
			}
			if rows == 0 {
				t.Fatal("no row was lost")
			}
			if long := float64(s.Lost) / float64(rows); long < 3 || long > 5.5 {
				t.Errorf("the rows of losses are %.1f long on average, want about 4", long)
			}
		}},
		{"all lost", Link{Loss: 1}, func(t *testing.T, got []string, s MemoryStats) {
			if len(got) != 0 || s.Lost != total {
				t.Errorf("%d arrived, %d lost", len(got), s.Lost)
			}
		}},
		{"duplicates", Link{Duplicate: 0.1, Delay: time.Millisecond}, func(t *testing.T, got []string, s MemoryStats) {
			about(t, "doubled", s.Duplicated, 0.1)
			if len(got) != total+int(s.Duplicated) || !slices.Equal(slices.Compact(slices.Clone(got)), sent) {
				t.Error("not all arrived once or twice, in order")
			}
		}},
		{"reordering", Link{Reorder: 0.1}, func(t *testing.T, got []string, s MemoryStats) {
			about(t, "reordered", s.Reordered, 0.1)
			if slices.IsSorted(got) {
				t.Error("all arrived in order")
			}
			slices.Sort(got)
			if !slices.Equal(got, sent) {
				t.Error("not all arrived once")
			}
		}},
		{"jitter", Link{Delay: time.Millisecond, Jitter: time.Second}, func(t *testing.T, got []string, s MemoryStats) {
			if slices.IsSorted(got) {
				t.Error("all arrived in order")
			}
			slices.Sort(got)
			if !slices.Equal(got, sent) {
				t.Error("not all arrived once")
			}
		}},
		{"corruption", Link{Corrupt: 0.1}, func(t *testing.T, got []string, s MemoryStats) {
			about(t, "corrupted", s.Corrupted, 0.1)
			turned := 0
			for i := range got {
				for j := range got[i] {
					turned += bits.OnesCount8(got[i][j] ^ sent[i][j])
				}
			}
			if len(got) != total || turned != int(s.Corrupted) {
				t.Errorf("%d arrived with %d bits turned, want %d with %d", len(got), turned, total, s.Corrupted)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, stats := run(t, 1, test.link)
			again, _ := run(t, 1, test.link)
			if !slices.Equal(got, again) {
				t.Error("two runs with one seed differ")
			}
			if other, _ := run(t, 2, test.link); len(got) > 0 && slices.Equal(got, other) {
				t.Error("two runs with different seeds are the same")
			}
			test.check(t, got, stats)
		})
	}
}

func TestMemoryMTU(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		m.net.SetLink(addrA, addrB, Link{MTU: 1000})
		for _, n := range []int{1000, 1001} {
			for _, way := range []struct {
				from *Node
				to   netip.AddrPort
			}{{m.a, addrB}, {m.b, addrA}} {
				if err := way.from.Send([]Message{{Buf: make([]byte, n), Seg: n, Addr: way.to}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if there, back := len(arrived(m.b)), len(arrived(m.a)); there != 1 || back != 2 {
			t.Errorf("%d arrived there and %d back, want 1 and 2", there, back)
		}
		if n := m.net.Stats().TooLong; n != 1 {
			t.Errorf("%d were too long, want 1", n)
		}
	})
}

func TestMemoryPartition(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		m.net.SetLink(addrA, addrB, Link{Delay: time.Second})
		m.send(1)
		m.net.Partition(addrB, addrA)
		m.send(2)
		m.advance(time.Second)
		m.want(1) // was on its way
		m.net.Heal(addrA, addrB)
		m.send(3)
		m.advance(time.Second) // the delay is as it was
		m.want(3)
		m.net.SetLink(addrA, addrB, Link{Down: true})
		m.send(4)
		m.want()
		if n := m.net.Stats().Down; n != 2 {
			t.Errorf("%d met a link that was down, want 2", n)
		}
	})
}

func TestMemoryRebind(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: time.Second}}, func(m *memoryTest) {
		m.send(1)
		if err := m.b.Rebind(addrA); err == nil {
			t.Error("two nodes have one address")
		}
		if err := m.b.Rebind(addrC); err != nil {
			t.Fatal(err)
		}
		m.send(2)
		m.advance(2 * time.Second)
		m.want() // neither what is on its way, nor what is sent there after
		if n := m.net.Stats().Nobody; n != 2 {
			t.Errorf("%d found nobody, want 2", n)
		}
		if got := m.b.LocalAddr(); got != addrB {
			t.Errorf("the node knows itself as %s, want %s", got, addrB)
		}
		if err := m.b.Send([]Message{{Buf: []byte("x"), Seg: 1, Addr: addrA}}); err != nil {
			t.Fatal(err)
		}
		ms := make([]Message, 1)
		if _, err := m.a.Receive(ms); err != nil || ms[0].Addr != addrC {
			t.Errorf("received from %s, %v; want %s", ms[0].Addr, err, addrC)
		}
		m.attach(addrB) // is free again
	})
}

func TestMemoryTap(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		var seen []string
		m.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			seen = append(seen, fmt.Sprintf("%s %s %s", from, to, d))
			switch string(d) {
			case "00001":
				return nil
			case "00002":
				m.net.SetTap(nil) // the network is the tap's to change
				return []byte("other")
			case "00000":
				return d[:0]
			}
			d[0] = 'X'
			return d
		})
		original := []byte("00007")
		if err := m.a.Send([]Message{{Buf: original, Seg: 5, Addr: addrB}}); err != nil {
			t.Fatal(err)
		}
		if string(original) != "00007" {
			t.Error("the tap changed the memory of the sender")
		}
		m.send(0, 1, 2, 3)
		if got, want := arrived(m.b), []string{"X0007", "other", "00003"}; !slices.Equal(got, want) {
			t.Errorf("arrived %q, want %q", got, want)
		}
		want := fmt.Sprintf("%s %s 00007", addrA, addrB)
		if len(seen) != 4 || seen[0] != want {
			t.Errorf("the tap saw %q, want 4 of them, the first %q", seen, want)
		}
		if n := m.net.Stats().Tapped; n != 1 {
			t.Errorf("%d were dropped by the tap, want 1", n)
		}
	})
}

func TestMemoryInject(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		for _, d := range [][]byte{[]byte("forged"), nil, make([]byte, MaxMessage+1)} {
			m.net.Inject(addrC, addrB, d)
		}
		ms := make([]Message, 4)
		if n, err := m.b.Receive(ms); n != 1 || err != nil || string(ms[0].Buf) != "forged" || ms[0].Addr != addrC {
			t.Errorf("received %d messages, the first %q from %s, %v", n, ms[0].Buf, ms[0].Addr, err)
		}
		if got, want := m.b.Stats().Drops, (Drops{Empty: 1, Oversize: 1}); got != want {
			t.Errorf("drops %+v, want %+v", got, want)
		}
	})
}

func TestMemoryQueueIsBounded(t *testing.T) {
	const room = 10
	inMemory(t, MemoryConfig{Queue: room * (5 + itemCost)}, func(m *memoryTest) {
		m.send(upTo(room + 3)...)
		if n := m.b.Stats().Drops.QueueFull; n != 3 {
			t.Errorf("%d found the queue full, want 3", n)
		}
		ms := make([]Message, 4)
		if n, err := m.b.Receive(ms); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		m.send(20, 21, 22, 23, 24) // there is room for what was read
		m.want(4, 5, 6, 7, 8, 9, 20, 21, 22, 23)
	})
}

// What is on its way may not grow without bound either.
func TestMemoryFlightIsBounded(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: time.Hour}}, func(m *memoryTest) {
		m.net.flight.bytes = maxFlight - (5 + itemCost)
		m.send(1, 2)
		if n := m.net.Stats().Crowded; n != 1 {
			t.Errorf("%d were dropped, want 1", n)
		}
	})
}

func TestMemoryCoalesces(t *testing.T) {
	inMemory(t, MemoryConfig{Coalesce: true}, func(m *memoryTest) {
		c := m.attach(addrC)
		send := func(from *Node, sizes ...int) {
			for _, n := range sizes {
				if err := from.Send([]Message{{Buf: bytes.Repeat([]byte{byte(n)}, n), Seg: n, Addr: addrB}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(m.a, 100, 100, 40)                // one message
		send(m.a, 40)                          // another, as a shorter one ends a message
		send(c, 40)                            // another source
		send(m.a, 30, 31)                      // a longer one does not fit
		send(m.a, repeat(9, MaxSegments+1)...) // too many
		send(m.a, repeat(30_000, 3)...)        // too long
		ms := make([]Message, 32)
		n, err := m.b.Receive(ms)
		if err != nil {
			t.Fatal(err)
		}
		want := [][2]int{{240, 100}, {40, 40}, {40, 40}, {30, 30}, {31 + 9, 31}, {9 * MaxSegments, 9}, {60_000, 30_000}, {30_000, 30_000}}
		var got [][2]int
		for _, m := range ms[:n] {
			got = append(got, [2]int{len(m.Buf), m.Seg})
		}
		if !slices.Equal(got, want) {
			t.Errorf("messages of %v, want %v", got, want)
		}
	})
}

// A reader who keeps what was lent finds it overwritten.
func TestMemoryClobbersWhatWasLent(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		m.send(1, 2)
		ms := make([]Message, 1)
		if _, err := m.b.Receive(ms); err != nil {
			t.Fatal(err)
		}
		kept := ms[0].Buf
		m.want(2)
		if !bytes.Equal(kept, bytes.Repeat([]byte{clobber}, 5)) {
			t.Errorf("lent bytes are %q after the next Receive", kept)
		}
	})
}

// When the last node is closed nothing is left that runs, even if datagrams were on their way and
// the network is used again.
func TestMemoryLastClose(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: time.Second}}, func(m *memoryTest) {
		m.send(1, 2, 3)
		m.a.Close()
		m.b.Close()
		if f := &m.net.flight; len(f.parcels) != 0 || f.calls != 0 || f.bytes != 0 {
			t.Errorf("%d datagrams, %d bytes and %d timers are left", len(f.parcels), f.bytes, f.calls)
		}
		if err := m.a.Rebind(addrC); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Rebind: %v, want net.ErrClosed", err)
		}
		m.a, m.b = m.attach(addrA), m.attach(addrB)
		m.send(4)
		m.advance(time.Second)
		m.want(4)
	})
}

// In real time too, closing at the very moment of a delivery leaves nothing behind; goleak and the
// race detector watch.
func TestMemoryCloseDuringDelivery(t *testing.T) {
	for range 200 {
		network := NewMemory(MemoryConfig{Link: Link{Delay: time.Microsecond, Jitter: 20 * time.Microsecond}})
		a, err := network.Attach(addrA)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := a.Send([]Message{{Buf: make([]byte, 100), Seg: 10, Addr: addrA}}); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		if network.flight.calls != 0 {
			t.Fatal("a delivery goes on after Close")
		}
	}
}

// A host that sleeps sends nothing and hears nothing, from whomever, and what was on its way to it is gone.
func TestMemoryUnplug(t *testing.T) {
	inMemory(t, MemoryConfig{Link: Link{Delay: time.Second}}, func(m *memoryTest) {
		m.send(1)
		m.b.Unplug()
		m.advance(time.Second)
		m.send(2)
		if err := m.b.Send([]Message{{Buf: []byte("x"), Seg: 1, Addr: addrA}}); err != nil {
			t.Fatal(err)
		}
		m.advance(time.Second)
		m.want()
		if n := len(arrived(m.a)); n != 0 {
			t.Errorf("%d arrived from a node without a cable", n)
		}
		if n := m.net.Stats().Down; n != 3 {
			t.Errorf("%d were dropped, want 3", n)
		}
		m.b.Plug()
		m.send(3)
		m.advance(time.Second)
		m.want(3)
	})
}

func TestMemoryObserverSeesEveryFate(t *testing.T) {
	inMemory(t, MemoryConfig{Queue: 3 * (5 + itemCost)}, func(m *memoryTest) {
		var seen []string
		begin := time.Now()
		m.net.SetObserver(func(p Passage, f Fate) {
			line := fmt.Sprintf("%v %q %v", p.Sent.Sub(begin), p.Datagram, f)
			if took := time.Since(p.Sent); took > 0 {
				line += fmt.Sprint(" after ", took)
			}
			for flag, name := range map[string]bool{" copy": p.Copy, " corrupt": p.Corrupt} {
				if name {
					line += flag
				}
			}
			seen = append(seen, line)
		})
		link := func(l Link) { m.net.SetLink(addrA, addrB, l) }
		m.send(1)
		link(Link{Delay: time.Second})
		m.send(2)
		link(Link{Loss: 1})
		m.send(3)
		link(Link{Burst: Burst{Begin: 1}})
		m.send(4)
		link(Link{MTU: 4})
		m.send(5)
		link(Link{Down: true})
		m.send(6)
		m.advance(time.Second)
		synctest.Wait()
		m.net.SetTap(func(netip.AddrPort, netip.AddrPort, []byte) []byte { return nil })
		m.send(7)
		m.net.SetTap(nil)
		link(Link{Duplicate: 1})
		m.send(8) // the copy does not fit the queue
		m.b.Rebind(addrC)
		link(Link{})
		m.send(9)
		want := []string{
			`0s "00001" delivered`,
			`0s "00003" lost`,
			`0s "00004" lost`,
			`0s "00005" too long`,
			`0s "00006" down`,
			`0s "00002" delivered after 1s`,
			`1s "" tapped`,
			`1s "00008" delivered`,
			`1s "00008" unread copy`,
			`1s "00009" nobody there`,
		}
		if !slices.Equal(seen, want) {
			t.Errorf("observed\n%v\nwant\n%v", strings.Join(seen, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestMemoryAddresses(t *testing.T) {
	inMemory(t, MemoryConfig{}, func(m *memoryTest) {
		if _, err := m.net.Attach(addrA); err == nil {
			t.Error("two nodes have one address")
		}
		if _, err := m.net.Attach(netip.AddrPort{}); err == nil {
			t.Error("a node has no address")
		}
		mapped := netip.AddrPortFrom(netip.AddrFrom16(addrB.Addr().As16()), addrB.Port())
		if err := m.a.Send([]Message{{Buf: []byte("00001"), Seg: 5, Addr: mapped}}); err != nil {
			t.Fatal(err)
		}
		m.want(1)
		m.net.SetLink(addrA, mapped, Link{Down: true})
		m.send(2)
		m.want()
	})
}
