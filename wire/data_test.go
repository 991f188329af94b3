package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// pair returns both ends of one direction.
func pair(key byte) (*Sealer, *Opener) {
	a := Keys{Send: SessionKey{key}, LocalIndex: 1, RemoteIndex: 0x01020304}
	b := Keys{Receive: SessionKey{key}, LocalIndex: 0x01020304, RemoteIndex: 1}
	return a.NewSealer(), b.NewOpener()
}

func seal(t testing.TB, s *Sealer, flags Flags, inner string) []byte {
	t.Helper()
	slot := make([]byte, DataOverhead+len(inner))
	copy(slot[HeaderLen:], inner)
	c, err := s.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	s.Seal(slot, c, flags, new(Nonce))
	return slot
}

func TestSealOpen(t *testing.T) {
	s, o := pair(1)
	for i, inner := range []string{"", "x", string(bytes.Repeat([]byte{0x45}, 1400))} {
		d := seal(t, s, FlagPartialChecksum, inner)
		h, ok := ParseData(d)
		if want := (DataHeader{FlagPartialChecksum, 0x01020304, uint64(i)}); !ok || h != want {
			t.Fatalf("header %+v, want %+v", h, want)
		}
		if len(inner) > 8 && bytes.Contains(d, []byte(inner)) {
			t.Fatal("not encrypted")
		}
		sealed := bytes.Clone(d)

		room := bytes.Repeat([]byte{0xaa}, len(inner)+64)
		got, err := o.Open(room[:0], d, new(Nonce))
		if err != nil || string(got) != inner {
			t.Fatalf("%q, %v", got, err)
		}
		if !bytes.Equal(room[len(inner):], bytes.Repeat([]byte{0xaa}, 64)) {
			t.Fatal("Open wrote beyond the inner bytes")
		}
		if !bytes.Equal(d, sealed) {
			t.Fatal("Open changed the datagram")
		}
		exact := make([]byte, 0, len(inner))
		if got, err := o.Open(exact, d, new(Nonce)); err != nil || string(got) != inner {
			t.Fatalf("with exact room: %v", err)
		}
		if got, err := o.Open(d[HeaderLen:HeaderLen], d, new(Nonce)); err != nil || string(got) != inner {
			t.Fatalf("in place: %v", err)
		}
		if len(inner) > 0 {
			if _, err := o.Open(make([]byte, len(inner)-1), sealed, new(Nonce)); !errors.Is(err, io.ErrShortBuffer) {
				t.Fatalf("without room: %v", err)
			}
		}
	}
}

// Every bit of a datagram matters, those of the header too.
func TestOpenFlippedBits(t *testing.T) {
	s, o := pair(1)
	d := seal(t, s, 0, "\x45inner")
	for i := range d {
		for bit := range 8 {
			f := bytes.Clone(d)
			f[i] ^= 1 << bit
			if _, err := o.Open(make([]byte, 0, 100), f, new(Nonce)); !errors.Is(err, ErrTag) && !errors.Is(err, ErrMalformed) {
				t.Errorf("byte %d, bit %d flipped: %v", i, bit, err)
			}
		}
	}
	for n := range d {
		if _, err := o.Open(make([]byte, 0, 100), d[:n], new(Nonce)); err == nil {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
	if _, err := o.Open(make([]byte, 0, 100), append(d, 0), new(Nonce)); !errors.Is(err, ErrTag) {
		t.Errorf("one byte longer: %v", err)
	}
	_, other := pair(2)
	if _, err := other.Open(make([]byte, 0, 100), d[:len(d):len(d)], new(Nonce)); !errors.Is(err, ErrTag) {
		t.Errorf("another key: %v", err)
	}
}

func TestReserveLimit(t *testing.T) {
	s, o := pair(1)
	s.next.Store(RejectAfterPackets - 3)
	for _, n := range []int{4, 0, -1, math.MaxInt32, math.MaxInt} {
		if _, err := s.Reserve(n); !errors.Is(err, ErrExhausted) {
			t.Errorf("Reserve(%d): %v", n, err)
		}
	}
	first, err := s.Reserve(3)
	if err != nil || first != RejectAfterPackets-3 || s.Reserved() != RejectAfterPackets {
		t.Fatalf("the last three: %d, %v", first, err)
	}
	if _, err := s.Reserve(1); !errors.Is(err, ErrExhausted) {
		t.Fatalf("past the last: %v", err)
	}
	slot := make([]byte, DataOverhead)
	s.Seal(slot, RejectAfterPackets-1, 0, new(Nonce))
	if _, err := o.Open(nil, slot, new(Nonce)); err != nil {
		t.Errorf("the last counter: %v", err)
	}
	// A remote that goes on regardless is not listened to.
	s.next.Store(RejectAfterPackets + 1)
	s.Seal(slot, RejectAfterPackets, 0, new(Nonce))
	if _, err := o.Open(nil, slot, new(Nonce)); !errors.Is(err, ErrMalformed) {
		t.Errorf("one past the last: %v", err)
	}
}

func TestRetire(t *testing.T) {
	s, o := pair(1)
	d := seal(t, s, 0, "x")
	late, err := s.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	s.Retire()
	if _, err := s.Reserve(1); !errors.Is(err, ErrExhausted) {
		t.Errorf("Reserve: %v", err)
	}
	s.Seal(make([]byte, DataOverhead), late, 0, new(Nonce)) // reserved before: must not panic
	o.Retire()
	if _, err := o.Open(make([]byte, 1), d, new(Nonce)); !errors.Is(err, ErrExhausted) {
		t.Errorf("Open: %v", err)
	}
	k := Keys{Send: SessionKey{1}, Receive: SessionKey{2}, LocalIndex: 3}
	k.Wipe()
	if k != (Keys{}) {
		t.Error("Wipe left something")
	}
}

func TestSealPanics(t *testing.T) {
	s, _ := pair(1)
	first, err := s.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"no room":      func() { s.Seal(make([]byte, DataOverhead-1), first, 0, new(Nonce)) },
		"not reserved": func() { s.Seal(make([]byte, DataOverhead), first+2, 0, new(Nonce)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// Reserve alone, with nothing between the calls, so that senders do meet.
func TestReserveRaces(t *testing.T) {
	const senders, total = 4, 1 << 20
	// More threads than processors: one is stopped in the middle of Reserve even on a machine with one.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * senders))
	s, _ := pair(1)
	s.next.Store(RejectAfterPackets - total)
	owners := make([]atomic.Uint32, total)
	var wg, ready sync.WaitGroup
	ready.Add(senders)
	for g := range senders {
		wg.Go(func() {
			ready.Done()
			ready.Wait()
			for n := g%3 + 1; n > 0; {
				first, err := s.Reserve(n)
				if err != nil {
					n--
					continue
				}
				for i := range uint64(n) {
					owners[first+i-(RejectAfterPackets-total)].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i := range owners {
		if n := owners[i].Load(); n != 1 {
			t.Fatalf("counter %d was reserved %d times", uint64(RejectAfterPackets-total)+uint64(i), n)
		}
	}
}

// No (key, direction, counter) is ever sealed under twice: many senders share each of several sealers,
// reserve in runs of different lengths and go on over the end of the counters, with sessions replaced meanwhile.
func TestNoNonceRepeats(t *testing.T) {
	type use struct {
		key     SessionKey
		counter uint64
	}
	const senders, sessions, tail = 8, 4, 5000
	used := make([]map[use]int, senders)
	var wg sync.WaitGroup
	type direction struct {
		key SessionKey
		*Sealer
	}
	var dirs []direction
	for i := range sessions {
		a := Keys{Send: SessionKey{byte(i), 1}, Receive: SessionKey{byte(i), 2}}
		b := Keys{Send: a.Receive, Receive: a.Send}
		dirs = append(dirs, direction{a.Send, a.NewSealer()}, direction{b.Send, b.NewSealer()})
	}
	for _, d := range dirs {
		d.next.Store(RejectAfterPackets - tail)
	}
	for g := range senders {
		used[g] = map[use]int{}
		wg.Go(func() {
			slot, nonce := make([]byte, DataOverhead+4), new(Nonce)
			for _, d := range dirs { // the next session once this one is used up
				for n := 1 + g; ; n = n%48 + 1 {
					first, err := d.Reserve(n)
					if err != nil {
						if n == 1 {
							break
						}
						continue
					}
					for i := range uint64(n) {
						d.Seal(slot, first+i, 0, nonce)
						h, ok := ParseData(slot)
						if !ok || h.Counter != first+i {
							t.Errorf("sealed under %d, says %d", first+i, h.Counter)
						}
						used[g][use{d.key, h.Counter}]++
					}
				}
			}
		})
	}
	wg.Wait()
	all := map[use]int{}
	for _, m := range used {
		for u, n := range m {
			all[u] += n
		}
	}
	for u, n := range all {
		if n > 1 {
			t.Fatalf("counter %d sealed under %d times", u.counter, n)
		}
	}
	if len(all) != len(dirs)*tail {
		t.Errorf("%d counters used of %d", len(all), len(dirs)*tail)
	}
}

func TestInnerOf(t *testing.T) {
	for b := range 256 {
		want := InnerControl
		if b>>4 == 4 || b>>4 == 6 {
			want = InnerPacket
		}
		if got := InnerOf([]byte{byte(b), 0}); got != want {
			t.Errorf("%#02x: %v", b, got)
		}
	}
	if InnerOf(nil) != InnerKeepalive {
		t.Error("empty is not a keepalive")
	}
}

func TestDataAllocations(t *testing.T) {
	s, o := pair(1)
	slot, room, nonce := make([]byte, DataOverhead+1400), make([]byte, 1400), new(Nonce)
	var w Window
	n := testing.AllocsPerRun(100, func() {
		c, _ := s.Reserve(1)
		s.Seal(slot, c, 0, nonce)
		if KindOf(slot) != KindData {
			t.Fatal("kind")
		}
		if _, err := o.Open(room, slot, nonce); err != nil || !w.Accept(c) {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func FuzzOpen(f *testing.F) {
	s, o := pair(1)
	f.Add(seal(f, s, 0, ""))
	f.Add(seal(f, s, 1, "\x45abc"))
	f.Add([]byte{4})
	sealed := map[string]string{string(seal(f, s, 0, "hello")): "hello"}
	room := make([]byte, 1<<16)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseData(b)
		if ok != (KindOf(b) == KindData) {
			t.Fatalf("ParseData and KindOf differ on %x", b)
		}
		inner, err := o.Open(room, b, new(Nonce))
		if !ok && !errors.Is(err, ErrMalformed) {
			t.Fatalf("malformed, but %v", err)
		}
		if err == nil {
			if want, known := sealed[string(b)]; known && want != string(inner) {
				t.Fatalf("%q", inner)
			}
			// What opens is what was sealed: sealing it again gives the same bytes.
			again := make([]byte, DataOverhead+len(inner))
			copy(again[HeaderLen:], inner)
			s.next.Store(max(s.next.Load(), h.Counter+1))
			s.Seal(again, h.Counter, h.Flags, new(Nonce))
			if h.Receiver == s.remote && !bytes.Equal(again, b) {
				t.Fatalf("%x opens and is not %x", b, again)
			}
		}
	})
}

func BenchmarkSeal1400(b *testing.B) {
	s, _ := pair(1)
	slot, nonce := make([]byte, DataOverhead+1400), new(Nonce)
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.Reserve(1)
		if err != nil {
			b.Fatal(err)
		}
		s.Seal(slot, c, 0, nonce)
	}
}

func BenchmarkOpen1400(b *testing.B) {
	s, o := pair(1)
	d := seal(b, s, 0, string(make([]byte, 1400)))
	room, nonce := make([]byte, 1400), new(Nonce)
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(room, d, nonce); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKindOfData(b *testing.B) {
	s, _ := pair(1)
	d := seal(b, s, 0, "x")
	b.ReportAllocs()
	for b.Loop() {
		if KindOf(d) != KindData {
			b.Fatal("kind")
		}
	}
}
