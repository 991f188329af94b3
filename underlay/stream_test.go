package underlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func frames(datagrams ...[]byte) []byte {
	var b []byte
	for _, d := range datagrams {
		b = appendFrame(b, d)
	}
	return b
}

// readFrames is the obvious way to read frames, the oracle of frameReader.
func readFrames(r io.Reader) ([][]byte, error) {
	var ds [][]byte
	for {
		var header [frameHeader]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return ds, err
		}
		n := int(binary.BigEndian.Uint16(header[:]))
		if n == 0 || n > MaxMessage {
			return ds, errors.New("not a frame")
		}
		d := make([]byte, n)
		if _, err := io.ReadFull(r, d); err != nil {
			return ds, io.ErrUnexpectedEOF
		}
		ds = append(ds, d)
	}
}

// readAll reads with frameReader to the end, in places messages a time.
func readAll(t *testing.T, r io.Reader, places int) ([][]byte, error) {
	t.Helper()
	f := frameReader{r: r}
	ms := make([]Message, places)
	var ds [][]byte
	for {
		n, err := f.read(ms)
		if err != nil {
			return ds, err
		}
		if n == 0 {
			t.Fatal("read nothing, without an error")
		}
		for i := range ms[:n] {
			if err := ms[i].check(); err != nil {
				t.Fatalf("read %v", err)
			}
			for b := ms[i].Buf; len(b) > 0; {
				k := min(ms[i].Seg, len(b))
				ds = append(ds, bytes.Clone(b[:k]))
				b = b[k:]
			}
		}
	}
}

func FuzzFrameReader(f *testing.F) {
	f.Add(frames([]byte("a")), uint8(1), uint8(1))
	f.Add(frames([]byte("abcd"), []byte("efgh"), []byte("ij"), []byte("kl")), uint8(3), uint8(2))
	f.Add(frames(make([]byte, 1400), make([]byte, 1400), make([]byte, 7)), uint8(200), uint8(1))
	f.Add([]byte{0, 0}, uint8(1), uint8(1))
	f.Add([]byte{0xff, 0xff, 1}, uint8(9), uint8(4))
	f.Add([]byte{0, 3, 1, 2}, uint8(9), uint8(4))
	f.Fuzz(func(t *testing.T, stream []byte, chunk, places uint8) {
		got, gotErr := readAll(t, &chunks{bytes.NewReader(stream), int(chunk)}, 1+int(places))
		want, wantErr := readFrames(bytes.NewReader(stream))
		if len(got) != len(want) {
			t.Fatalf("read %d datagrams, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("datagram %d is % x, want % x", i, got[i], want[i])
			}
		}
		for _, is := range []error{io.EOF, io.ErrUnexpectedEOF} {
			if errors.Is(gotErr, is) != errors.Is(wantErr, is) {
				t.Fatalf("ended with %v, want %v", gotErr, wantErr)
			}
		}
	})
}

// chunks reads at most n+1 bytes at a time.
type chunks struct {
	r io.Reader
	n int
}

func (c *chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n+1)]) }

// A long stream goes through the buffer many times, however it is cut.
func TestFramesLongerThanTheBuffer(t *testing.T) {
	var stream []byte
	for i := range 3000 {
		n := 1 + i*37%1500
		if i%500 == 0 {
			n = MaxMessage
		}
		stream = appendFrame(stream, bytes.Repeat([]byte{byte(i)}, n))
	}
	want, _ := readFrames(bytes.NewReader(stream))
	for name, r := range map[string]io.Reader{
		"at once":     bytes.NewReader(stream),
		"by halves":   iotest.HalfReader(bytes.NewReader(stream)),
		"by bytes":    iotest.OneByteReader(bytes.NewReader(stream)),
		"data, error": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		got, err := readAll(t, r, 8)
		if err != io.EOF {
			t.Errorf("%s: ended with %v, want EOF", name, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: read %d datagrams, want %d", name, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s: datagram %d differs", name, i)
			}
		}
	}
}

func TestFramesAreGathered(t *testing.T) {
	d := func(n int) []byte { return make([]byte, n) }
	for _, test := range []struct {
		name  string
		sizes []int
		want  [][2]int // length and segment size of the messages
	}{
		{"equal", []int{100, 100, 100}, [][2]int{{300, 100}}},
		{"a shorter one ends it", []int{100, 100, 40, 40}, [][2]int{{240, 100}, {40, 40}}},
		{"a longer one does not fit", []int{100, 101}, [][2]int{{100, 100}, {101, 101}}},
		{"as many as a message holds", repeat(10, MaxSegments+2), [][2]int{{10 * MaxSegments, 10}, {20, 10}}},
		{"as long as a message is", repeat(30_000, 3), [][2]int{{60_000, 30_000}, {30_000, 30_000}}},
	} {
		var stream []byte
		for _, n := range test.sizes {
			stream = appendFrame(stream, d(n))
		}
		f := frameReader{r: bytes.NewReader(stream)}
		ms := make([]Message, 8)
		n, err := f.read(ms)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if n != len(test.want) {
			t.Fatalf("%s: %d messages, want %d", test.name, n, len(test.want))
		}
		for i, want := range test.want {
			if got := [2]int{len(ms[i].Buf), ms[i].Seg}; got != want {
				t.Errorf("%s: message %d has %d bytes by %d, want %d by %d", test.name, i, got[0], got[1], want[0], want[1])
			}
		}
	}
}

func repeat(n, times int) []int {
	s := make([]int, times)
	for i := range s {
		s[i] = n
	}
	return s
}

// stalled reads nothing, for ever.
type stalled struct{}

func (stalled) Read([]byte) (int, error) { return 0, nil }

func TestFramesWithoutProgress(t *testing.T) {
	if _, err := readAll(t, stalled{}, 1); err != io.ErrNoProgress {
		t.Fatalf("ended with %v, want io.ErrNoProgress", err)
	}
}

// openStream returns a carrier and the far end of its connection.
func openStream(t *testing.T, cfg Config) (*Stream, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	s := NewStream(near, cfg)
	t.Cleanup(func() {
		s.Close()
		far.Close()
	})
	return s, far
}

// The end of a stream is told once all before it is delivered, and closes the other direction.
func TestStreamEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		tail []byte
		is   error // nil: any
	}{
		{"closed between frames", nil, io.EOF},
		{"closed in a frame", []byte{0, 9, 1}, io.ErrUnexpectedEOF},
		{"closed in a length", []byte{0}, io.ErrUnexpectedEOF},
		{"a frame without bytes", []byte{0, 0}, nil},
		{"a frame too long", []byte{0xff, 0xff}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, far := openStream(t, Config{})
				go func() {
					far.Write(append(frames([]byte("first")), test.tail...))
					far.Close()
				}()
				ms := make([]Message, 4)
				if n, err := s.Receive(ms); n != 1 || string(ms[0].Buf) != "first" {
					t.Fatalf("Receive = %d, %v; want the first datagram", n, err)
				}
				for range 2 {
					n, err := s.Receive(ms)
					if n != 0 || err == nil || errors.Is(err, net.ErrClosed) {
						t.Fatalf("Receive = %d, %v; want the reason of the end", n, err)
					}
					if test.is != nil && !errors.Is(err, test.is) {
						t.Fatalf("Receive: %v, want %v", err, test.is)
					}
				}
				if err := s.Send([]Message{{Buf: []byte{1}, Seg: 1}}); !errors.Is(err, net.ErrClosed) {
					t.Fatalf("Send: %v, want net.ErrClosed", err)
				}
				if err := s.Close(); err != nil {
					t.Fatalf("Close: %v", err)
				}
				if _, err := s.Receive(ms); err == nil {
					t.Fatal("Receive after the end: no error")
				}
			})
		})
	}
}

// A far end that does not read holds up Send for one bounded wait in all, and costs bounded memory.
// What was queued still goes out once it reads.
func TestStreamSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := openStream(t, Config{Queue: 100_000})
		message := Message{Buf: make([]byte, 64_000), Seg: 1000}
		begin := time.Now()
		full := false
		for range 1000 {
			if err := s.Send([]Message{message}); err != nil {
				if errors.Is(err, net.ErrClosed) {
					t.Fatal(err)
				}
				full = true
			}
		}
		if waited := time.Since(begin); waited > maxWait {
			t.Errorf("1000 calls of Send waited %v for a far end that does not read, want at most %v", waited, maxWait)
		}
		if !full {
			t.Error("no Send told that it dropped something")
		}
		dropped := s.Stats().Drops.QueueFull
		if dropped < 64_000-200 || dropped >= 64_000 {
			t.Errorf("%d of 64000 datagrams were dropped, want all but what the queue holds", dropped)
		}

		got := make(chan int)
		go func() {
			n := 0
			for header := make([]byte, frameHeader+1000); ; n++ {
				if _, err := io.ReadFull(far, header); err != nil {
					got <- n
					return
				}
			}
		}()
		synctest.Wait()
		if err := s.Send([]Message{{Buf: make([]byte, 1000), Seg: 1000}}); err != nil {
			t.Errorf("Send, now that there is room again: %v", err)
		}
		synctest.Wait()
		sent := s.Stats().DatagramsSent
		if sent != 64_000-dropped+1 {
			t.Errorf("%d datagrams were sent, want %d", sent, 64_000-dropped+1)
		}
		s.Close()
		if n := <-got; uint64(n) != sent {
			t.Errorf("%d datagrams came out, want %d", n, sent)
		}
	})
}

// Once the far end has read, it is waited for anew.
func TestStreamWaitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := openStream(t, Config{Queue: 1})
		message := Message{Buf: make([]byte, 64_000), Seg: 1000}
		for round := range 3 {
			begin := time.Now()
			for range 5 {
				_ = s.Send([]Message{message})
			}
			if waited := time.Since(begin); waited != maxWait {
				t.Errorf("round %d: waited %v, want %v", round, waited, maxWait)
			}
			// All that the writer and the queue hold.
			if _, err := io.ReadFull(far, make([]byte, s.queuedBytes())); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
	})
}

// queuedBytes is how many bytes the writer and the queue hold, when the writer is stuck and nothing of
// what it took has been read.
func (s *Stream) queuedBytes() int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.spare) + len(s.queue.frames)
}

// A far end that reads briskly gets everything, however much more than the queue holds is sent.
func TestStreamBriskReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := openStream(t, Config{Queue: 1})
		const total = 500
		go func() {
			for i := range total {
				m := Message{Buf: bytes.Repeat([]byte{byte(i)}, 60_000), Seg: 1500}
				if err := s.Send([]Message{m}); err != nil {
					t.Errorf("Send %d: %v", i, err)
				}
			}
		}()
		frame := make([]byte, frameHeader+1500)
		for i := range total * 40 {
			if i%400 == 0 {
				<-time.After(time.Millisecond) // in fake time, and less than Send waits for
			}
			if _, err := io.ReadFull(far, frame); err != nil {
				t.Fatal(err)
			}
			if frame[frameHeader] != byte(i/40) {
				t.Fatalf("datagram %d is of message %d, want %d", i, frame[frameHeader], byte(i/40))
			}
		}
	})
}

// Close does not wait for a far end that does not read, nor does it leave the waiting Send behind.
func TestStreamCloseDuringWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := openStream(t, Config{Queue: 1})
		message := Message{Buf: make([]byte, 64_000), Seg: 1000}
		if err := s.Send([]Message{message}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer has it
		if err := s.Send([]Message{message}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		ended := make(chan error)
		go func() { ended <- s.Send([]Message{message}) }()
		synctest.Wait()
		s.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send: %v, want net.ErrClosed", err)
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("Close left Send waiting for %v", waited)
		}
	})
}

func TestEveryDatagramOfAStreamIsSentOrCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := openStream(t, Config{Queue: 100_000})
		const messages, datagrams = 10, 64
		for range messages {
			if err := s.Send([]Message{{Buf: make([]byte, datagrams*1000), Seg: 1000}}); errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
		}
		io.CopyN(io.Discard, far, 150_000) // which leaves some in the writer's hands, and some in the queue
		synctest.Wait()
		s.Close()
		st := s.Stats()
		if st.Drops.Ended == 0 || st.Drops.QueueFull == 0 || st.DatagramsSent == 0 {
			t.Errorf("%+v", st)
		}
		if sum := st.DatagramsSent + st.Drops.QueueFull + st.Drops.Ended; sum != messages*datagrams {
			t.Errorf("%d counted of %d: %+v", sum, messages*datagrams, st)
		}
	})
}

func BenchmarkStream(b *testing.B) {
	near, far := net.Pipe()
	s, r := NewStream(near, Config{}), NewStream(far, Config{})
	defer s.Close()
	defer r.Close()
	message := []Message{{Buf: make([]byte, 45*1432), Seg: 1432}}
	b.SetBytes(45 * 1432)
	b.ReportAllocs()
	go func() {
		ms := make([]Message, 8)
		for {
			if _, err := r.Receive(ms); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		_ = s.Send(message)
	}
	b.ReportMetric(float64(s.Stats().Drops.QueueFull)/float64(b.N*45), "dropped/datagram")
}
