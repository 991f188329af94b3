package underlay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/internal/citest"
)

func listen(t testing.TB, addr string, cfg Config) *UDP {
	t.Helper()
	u, err := ListenUDP(context.Background(), addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// datagrams receives until there are n, and returns copies.
func datagrams(t testing.TB, c Carrier, n int) [][]byte {
	t.Helper()
	ms := make([]Message, 8)
	var ds [][]byte
	for len(ds) < n {
		filled, err := c.Receive(ms)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:filled] {
			for b := bytes.Clone(m.Buf); len(b) > 0; {
				k := min(m.Seg, len(b))
				ds = append(ds, b[:k])
				b = b[k:]
			}
		}
	}
	return ds
}

// numbered is a message of n datagrams of size bytes, the last one shorter, that tell number and place.
func numbered(number, n, size int, to netip.AddrPort) Message {
	m := Message{Seg: size, Addr: to}
	for i := range n {
		d := make([]byte, size)
		d[0], d[1] = byte(number), byte(i)
		m.Buf = append(m.Buf, d...)
	}
	m.Buf = m.Buf[:len(m.Buf)-size/2]
	m.Seg = min(m.Seg, len(m.Buf))
	return m
}

func wantNumbered(t *testing.T, ds [][]byte, ms ...Message) {
	t.Helper()
	for _, m := range ms {
		for b := m.Buf; len(b) > 0; {
			k := min(m.Seg, len(b))
			if len(ds) == 0 {
				t.Fatalf("datagram % x... is missing", b[:2])
			}
			if !bytes.Equal(ds[0], b[:k]) {
				t.Fatalf("received datagram % x... of %d bytes, want % x... of %d", ds[0][:2], len(ds[0]), b[:2], k)
			}
			ds, b = ds[1:], b[k:]
		}
	}
	if len(ds) > 0 {
		t.Fatalf("%d datagrams too many", len(ds))
	}
}

// refusing makes u's socket refuse messages with UDP_SEGMENT while refuse says so for the n-th of
// them, counted from 0.
func refusing(u *UDP, refuse func(n int) syscall.Errno) {
	n := 0
	u.body.(*batched).sendmmsg = func(fd uintptr, v []mmsghdr) (int, syscall.Errno) {
		for i := range v {
			if v[i].hdr.Controllen == 0 {
				continue
			}
			if errno := refuse(n); errno != 0 {
				if i > 0 {
					return sendmmsg(fd, v[:i]) // as the system does: what goes, goes first
				}
				n++
				return 0, errno
			}
			n++
		}
		return sendmmsg(fd, v)
	}
}

// A system that fails at segmentation is noticed; nothing is lost or reordered, it is told once.
func TestSegmentationRefused(t *testing.T) {
	always := func(e syscall.Errno) func(int) syscall.Errno {
		return func(int) syscall.Errno { return e }
	}
	fromThird := func(e syscall.Errno) func(int) syscall.Errno {
		return func(n int) syscall.Errno {
			if n < 2 {
				return 0
			}
			return e
		}
	}
	for _, test := range []struct {
		name   string
		refuse func(int) syscall.Errno
		gso    bool // still on afterwards
		log    string
	}{
		{"never", always(0), true, ""},
		{"EIO at once", always(unix.EIO), false, "switched off"},
		{"EIO later", fromThird(unix.EIO), false, "switched off"},
		{"EINVAL at once", always(unix.EINVAL), false, "switched off"},
		{"EMSGSIZE at once", always(unix.EMSGSIZE), false, "switched off"},
		{"EINVAL after it worked", fromThird(unix.EINVAL), true, "not taken whole"},
		{"EMSGSIZE after it worked", fromThird(unix.EMSGSIZE), true, "not taken whole"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			a := listen(t, "127.0.0.1:0", Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			b := listen(t, "127.0.0.1:0", Config{})
			needSegmentation(t, a)
			refusing(a, test.refuse)
			for round := range 3 {
				// A plain message among the others must keep its place.
				plain := Message{Buf: []byte{99, byte(round)}, Seg: 2, Addr: b.LocalAddr()}
				ms := []Message{
					numbered(3*round, 10, 600, b.LocalAddr()),
					plain,
					numbered(3*round+1, MaxSegments, 20, b.LocalAddr()),
					numbered(3*round+2, 2, 600, b.LocalAddr()),
				}
				if err := a.Send(ms); err != nil {
					t.Fatalf("Send: %v", err)
				}
				wantNumbered(t, datagrams(t, b, 10+1+MaxSegments+2), ms...)
			}
			stats := a.Stats()
			if stats.GSO != test.gso {
				t.Errorf("GSO is on: %v, want %v", stats.GSO, test.gso)
			}
			if want := uint64(3 * (10 + 1 + MaxSegments + 2)); stats.DatagramsSent != want || stats.SendErrors != 0 {
				t.Errorf("%d datagrams sent, %d errors; want %d, 0", stats.DatagramsSent, stats.SendErrors, want)
			}
			if lines := strings.Count(log.String(), "\n"); test.log == "" && lines > 0 ||
				test.log != "" && (lines != 1 || !strings.Contains(log.String(), test.log)) {
				t.Errorf("log: %q, want one line with %q", log.String(), test.log)
			}
			if (stats.Refused > 0) != (test.log != "") {
				t.Errorf("%d messages were refused", stats.Refused)
			}
		})
	}
}

func needSegmentation(t *testing.T, u *UDP) {
	t.Helper()
	if s := u.Stats(); !s.GSO || !s.GRO {
		citest.Skipf(t, "this kernel has no UDP_SEGMENT or UDP_GRO")
	}
}

// What one destination refuses does not keep the other messages of a batch.
func TestUnreachableDestination(t *testing.T) {
	for _, portable := range []bool{false, true} {
		t.Run(fmt.Sprintf("portable %v", portable), func(t *testing.T) {
			a := listen(t, "127.0.0.1:0", Config{Portable: portable})
			b := listen(t, "127.0.0.1:0", Config{})
			v6 := numbered(9, 3, 100, netip.MustParseAddrPort("[2001:db8::1]:9")) // a from an IPv4 socket
			// No way leads there from a loopback address.
			denied := numbered(9, 2, 100, netip.MustParseAddrPort("192.0.2.1:9"))
			first, last := numbered(1, 3, 100, b.LocalAddr()), numbered(2, 1, 100, b.LocalAddr())
			gso := a.Stats().GSO
			if err := a.Send([]Message{denied, first, v6, last}); err == nil || errors.Is(err, net.ErrClosed) {
				t.Fatalf("Send: %v, want an error about one destination", err)
			}
			wantNumbered(t, datagrams(t, b, 4), first, last)
			if s := a.Stats(); s.SendErrors != 5 || s.DatagramsSent != 4 || s.MessagesSent != 4 {
				t.Errorf("stats %+v, want 5 errors and 4 datagrams of 4 messages sent", s)
			} else if s.GSO != gso {
				t.Error("a bad destination switched segmentation off")
			}
		})
	}
}

// ICMP messages about datagrams sent earlier end nothing. Loopback answers a closed port at once, and
// IP_RECVERR makes the system report it.
func TestReceiveOutlivesICMP(t *testing.T) {
	for _, portable := range []bool{false, true} {
		t.Run(fmt.Sprintf("portable %v", portable), func(t *testing.T) {
			a := listen(t, "127.0.0.1:0", Config{Portable: portable})
			b := listen(t, "127.0.0.1:0", Config{})
			gone := listen(t, "127.0.0.1:0", Config{})
			gone.Close()
			control(t, a, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
			if err := a.Send([]Message{numbered(1, 1, 100, gone.LocalAddr())}); err != nil {
				t.Fatal(err)
			}
			want := numbered(2, 1, 100, a.LocalAddr())
			if err := b.Send([]Message{want}); err != nil {
				t.Fatal(err)
			}
			wantNumbered(t, datagrams(t, a, 1), want)
			if n := a.Stats().ReceiveErrors; n != 1 {
				t.Errorf("%d errors were passed over, want 1", n)
			}
		})
	}
}

func control(t testing.TB, u *UDP, f func(fd int) error) {
	t.Helper()
	raw, err := u.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// Datagrams that are no message are dropped and counted, and what follows them arrives.
func TestReceivedRubbish(t *testing.T) {
	for _, cfg := range []Config{{}, {DisableGRO: true}, {Portable: true}} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			u := listen(t, "127.0.0.1:0", cfg)
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.LocalAddr()))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range []int{0, MaxMessage + 1, 0, 65507, 17} {
				if _, err := c.Write(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
			}
			if d := datagrams(t, u, 1)[0]; len(d) != 17 {
				t.Errorf("received %d bytes, want 17", len(d))
			}
			if got, want := u.Stats().Drops, (Drops{Empty: 2, Oversize: 2}); got != want {
				t.Errorf("drops %+v, want %+v", got, want)
			}
		})
	}
}

func TestReceivedTruncated(t *testing.T) {
	a := listen(t, "127.0.0.1:0", Config{})
	b := listen(t, "127.0.0.1:0", Config{})
	r := &b.body.(*batched).receiver
	for i := range r.bufs {
		r.setBuffer(i, make([]byte, 100))
	}
	long, short := numbered(1, 1, 300, b.LocalAddr()), numbered(2, 1, 60, b.LocalAddr())
	if err := a.Send([]Message{long, short}); err != nil {
		t.Fatal(err)
	}
	wantNumbered(t, datagrams(t, b, 1), short)
	if n := b.Stats().Drops.Truncated; n != 1 {
		t.Errorf("%d truncated datagrams counted, want 1", n)
	}
}

// What the system joined beyond the limits of Message comes as several messages, none lost, however few
// places Receive is given.
func TestReceiveCutsLongMessages(t *testing.T) {
	for _, test := range []struct {
		name      string
		size, seg int
		want      [][2]int
	}{
		{"fits", 3000, 1000, [][2]int{{3000, 1000}}},
		{"no segment size", 3000, 0, [][2]int{{3000, 3000}}},
		{"segment size beyond the end", 3000, 4000, [][2]int{{3000, 3000}}},
		{"too many datagrams", 130, 1, [][2]int{{64, 1}, {64, 1}, {2, 1}}},
		{"too many bytes", 46*1422 + 5, 1422, [][2]int{{45 * 1422, 1422}, {1422 + 5, 1422}}},
		{"a short rest", 45*1422 + 700, 1422, [][2]int{{45*1422 + 700, 1422}}},
		{"a rest shorter than a segment", 65*1000 + 3, 1000, [][2]int{{64_000, 1000}, {1003, 1000}}},
		{"a last one alone", 64*1000 + 3, 1000, [][2]int{{64_000, 1000}, {3, 3}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := listen(t, "127.0.0.1:0", Config{}).body.(*batched)
			r := &b.receiver
			for i := range test.size {
				r.bufs[0][i] = byte(i % 251)
			}
			r.got = 1
			r.hdrs[0].len = uint32(test.size)
			r.hdrs[0].hdr.SetControllen(0)
			if test.seg > 0 {
				r.hdrs[0].hdr.SetControllen(unix.CmsgLen(4))
				r.controls[0].hdr.Level, r.controls[0].hdr.Type = unix.IPPROTO_UDP, unix.UDP_GRO
				r.controls[0].seg = int32(test.seg)
			}
			ms := make([]Message, 1)
			at := 0
			for _, want := range test.want {
				if n := r.take(ms); n != 1 {
					t.Fatalf("took %d messages, want 1", n)
				}
				if got := [2]int{len(ms[0].Buf), ms[0].Seg}; got != want {
					t.Fatalf("message of %d bytes by %d, want %d by %d", got[0], got[1], want[0], want[1])
				}
				if ms[0].Buf[0] != byte(at%251) {
					t.Errorf("message begins at another place than %d", at)
				}
				if cap(ms[0].Buf) != want[0] {
					t.Errorf("appending to the message would reach %d bytes beyond it", cap(ms[0].Buf)-want[0])
				}
				at += want[0]
			}
			if n := r.take(ms); n != 0 {
				t.Errorf("one message too many: %+v", ms[0])
			}
		})
	}
}

// Messages cross the kernel whole in both directions; that is what the carrier is for.
func TestMessagesStayWhole(t *testing.T) {
	a, b := listen(t, ":0", Config{}), listen(t, ":0", Config{})
	needSegmentation(t, a)
	for _, to := range []string{"127.0.0.1", "::1"} {
		m := numbered(1, 45, 1432, netip.AddrPortFrom(netip.MustParseAddr(to), b.LocalAddr().Port()))
		if err := a.Send([]Message{m}); err != nil {
			t.Fatal(err)
		}
		ms := make([]Message, 8)
		n, err := b.Receive(ms)
		if err != nil {
			t.Fatal(err)
		}
		if n != 1 || ms[0].Seg != 1432 || !bytes.Equal(ms[0].Buf, m.Buf) {
			t.Errorf("by %s: %d messages, the first of %d bytes by %d; want one of %d by 1432", to, n, len(ms[0].Buf), ms[0].Seg, len(m.Buf))
		}
	}
}

func TestLocalAddr(t *testing.T) {
	for addr, want := range map[string]string{":0": "::", "0.0.0.0:0": "0.0.0.0", "127.0.0.1:0": "127.0.0.1", "[::1]:0": "::1", "[::]:0": "::"} {
		u := listen(t, addr, Config{})
		if got := u.LocalAddr(); got.Addr().String() != want || got.Port() == 0 {
			t.Errorf("listening at %s gave %s, want %s and a port", addr, got, want)
		}
	}
	if u, err := ListenUDP(context.Background(), "nonsense", Config{}); err == nil {
		u.Close()
		t.Error("listening at nonsense is possible")
	}
}

// The steady state allocates nothing, whatever the shape of messages.
func TestUDPAllocations(t *testing.T) {
	for _, cfg := range []Config{{}, {DisableGSO: true, DisableGRO: true}} {
		a, b := listen(t, ":0", cfg), listen(t, ":0", cfg)
		for _, to := range []string{"127.0.0.1", "::1"} {
			m := numbered(1, 20, 1000, netip.AddrPortFrom(netip.MustParseAddr(to), b.LocalAddr().Port()))
			out, in := []Message{m, m}, make([]Message, 8)
			round := func() {
				if err := a.Send(out); err != nil {
					t.Fatal(err)
				}
				for got := 0; got < 40; {
					n, err := b.Receive(in)
					if err != nil {
						t.Fatal(err)
					}
					for i := range in[:n] {
						got += in[i].datagrams()
					}
				}
			}
			round()
			if n := testing.AllocsPerRun(100, round); n > 0 {
				t.Errorf("%+v to %s: %v allocations for 40 datagrams, want 0", cfg, to, n)
			}
		}
	}
}

// Senders are as many as there were calls at one time, and keep no memory of the callers.
func TestSendersAreReused(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0", Config{}), listen(t, "127.0.0.1:0", Config{})
	for i := range 50 {
		if err := a.Send([]Message{numbered(i, 3, 100, b.LocalAddr())}); err != nil {
			t.Fatal(err)
		}
	}
	idle := a.body.(*batched).idle
	if len(idle) != 1 {
		t.Fatalf("%d senders for one goroutine", len(idle))
	}
	v := idle[0].whole
	for i := range v.queued {
		if v.queued[i].Buf != nil || v.iovs[i].Base != nil {
			t.Fatal("a sender holds a message that was sent")
		}
	}
}

// A full socket buffer is waited for; Close ends the wait.
func TestSendWaitsForRoom(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0", Config{}), listen(t, "127.0.0.1:0", Config{})
	full, waiting := true, make(chan struct{})
	var once sync.Once
	a.body.(*batched).sendmmsg = func(fd uintptr, v []mmsghdr) (int, syscall.Errno) {
		if full {
			// The poller calls again when the socket is writable, which it always is.
			full = false
			once.Do(func() { close(waiting) })
			return 0, unix.EAGAIN
		}
		return sendmmsg(fd, v)
	}
	m := numbered(1, 5, 100, b.LocalAddr())
	if err := a.Send([]Message{m}); err != nil {
		t.Fatal(err)
	}
	<-waiting
	wantNumbered(t, datagrams(t, b, 5), m)

	ended := make(chan error)
	stuck := make(chan struct{})
	var told sync.Once
	a.body.(*batched).sendmmsg = func(uintptr, []mmsghdr) (int, syscall.Errno) {
		told.Do(func() { close(stuck) })
		return 0, unix.EAGAIN
	}
	go func() { ended <- a.Send([]Message{m}) }()
	<-stuck
	a.Close()
	if err := <-ended; err != net.ErrClosed {
		t.Errorf("Send: %v, want net.ErrClosed", err)
	}
}

func TestNoDescriptorLeft(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	listen(t, ":0", Config{}).Close() // the poller has its own
	before := open()
	for range 20 {
		u := listen(t, ":0", Config{})
		ended := make(chan error)
		go func() {
			_, err := u.Receive(make([]Message, 1))
			ended <- err
		}()
		u.Close()
		<-ended
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// inNamespace runs f in a network namespace of its own, with loopback up at the MTU given.
func inNamespace(t *testing.T, mtu int, f func(lo netlink.Link)) {
	t.Helper()
	if os.Geteuid() != 0 {
		citest.Skipf(t, "making a network namespace needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetMTU(lo, mtu)
		}
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Errorf("set up loopback: %v", err)
			return
		}
		f(lo)
	}()
	<-done
}

// A path that carries less than a segment gets fragments, not silence.
func TestSegmentsBeyondThePath(t *testing.T) {
	inNamespace(t, 1280, func(netlink.Link) {
		for _, cfg := range []Config{{}, {Portable: true}} {
			a, b := listen(t, ":0", cfg), listen(t, ":0", Config{})
			for _, to := range []string{"127.0.0.1", "::1"} {
				m := numbered(1, 20, 1432, netip.AddrPortFrom(netip.MustParseAddr(to), b.LocalAddr().Port()))
				if err := a.Send([]Message{m}); err != nil {
					t.Errorf("to %s: %v", to, err)
					return
				}
				wantNumbered(t, datagrams(t, b, 20), m)
			}
			t.Logf("%+v", a.Stats())
		}
	})
}

// A probe is not fragmented, and neither before nor behind it does data travel otherwise than ever.
func TestProbeBeyondThePath(t *testing.T) {
	inNamespace(t, 1280, func(netlink.Link) {
		for _, c := range []struct {
			to, listen string
			fits       int
		}{
			{"127.0.0.1", ":0", 1280 - 28},
			{"127.0.0.1", "127.0.0.1:0", 1280 - 28},
			{"::1", ":0", 1280 - 48},
			{"::1", "[::1]:0", 1280 - 48},
		} {
			for _, cfg := range []Config{{}, {Portable: true}} {
				a, b := listen(t, c.listen, cfg), listen(t, c.listen, Config{})
				to := netip.AddrPortFrom(netip.MustParseAddr(c.to), b.LocalAddr().Port())
				probe := func(size int) Message { return Message{Buf: make([]byte, size), Seg: size, Addr: to} }
				for range 2 {
					if err := a.Probe(probe(c.fits + 1)); !errors.Is(err, ErrTooLong) {
						t.Errorf("%d bytes to %s: %v, want ErrTooLong", c.fits+1, c.to, err)
					}
					if err := a.Probe(probe(c.fits)); err != nil {
						t.Errorf("%d bytes to %s: %v", c.fits, c.to, err)
					}
					wantNumbered(t, datagrams(t, b, 1), probe(c.fits))
					data := numbered(3, 20, 1432, to)
					if err := a.Send([]Message{data}); err != nil {
						t.Errorf("data to %s: %v", c.to, err)
					}
					wantNumbered(t, datagrams(t, b, 20), data)
				}
			}
		}
	})
}

// A zone goes in and comes out as the name of the interface.
func TestZones(t *testing.T) {
	inNamespace(t, 65536, func(lo netlink.Link) {
		addr, err := netlink.ParseAddr("fe80::1/64")
		if err == nil {
			addr.Flags = unix.IFA_F_NODAD
			err = netlink.AddrAdd(lo, addr)
		}
		for inUse := false; !inUse && err == nil; runtime.Gosched() {
			inUse, err = hasLocalRoute(addr.IPNet)
		}
		if err != nil {
			t.Error(err)
			return
		}
		for _, portable := range []bool{false, true} {
			a, b := listen(t, ":0", Config{Portable: portable}), listen(t, ":0", Config{Portable: portable})
			for _, zone := range []string{"lo", "1"} {
				to := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%"+zone), b.LocalAddr().Port())
				if err := a.Send([]Message{numbered(1, 1, 10, to)}); err != nil {
					t.Errorf("to %s: %v", to, err)
					return
				}
				ms := make([]Message, 1)
				if _, err := b.Receive(ms); err != nil {
					t.Error(err)
					return
				}
				if want := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), a.LocalAddr().Port()); ms[0].Addr != want {
					t.Errorf("from %s, want %s", ms[0].Addr, want)
				}
			}
			// Package net takes a zone it does not know for none.
			nowhere := netip.MustParseAddrPort("[fe80::1%nosuch0]:9")
			if err := a.Send([]Message{numbered(1, 1, 10, nowhere)}); err == nil && !portable {
				t.Errorf("sent to %s", nowhere)
			}
		}
	})
}

// hasLocalRoute reports whether the kernel has put addr into use, which it does some time after
// it was added.
func hasLocalRoute(addr *net.IPNet) (bool, error) {
	host := &net.IPNet{IP: addr.IP, Mask: net.CIDRMask(128, 128)}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6,
		&netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: host}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	return len(routes) > 0, err
}

func TestSockaddrs(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		v6     bool
		addr   string
		family uint16
		length uint32
		scope  uint32
		back   string
	}{
		{false, "192.0.2.1:5040", unix.AF_INET, 16, 0, "192.0.2.1:5040"},
		{false, "[::ffff:192.0.2.1]:5040", unix.AF_INET, 16, 0, "192.0.2.1:5040"},
		{true, "192.0.2.1:5040", unix.AF_INET6, 28, 0, "192.0.2.1:5040"},
		{true, "[::ffff:192.0.2.1]:5040", unix.AF_INET6, 28, 0, "192.0.2.1:5040"},
		{true, "[2001:db8::1]:1", unix.AF_INET6, 28, 0, "[2001:db8::1]:1"},
		{true, "[fe80::1%lo]:65535", unix.AF_INET6, 28, uint32(lo.Index), "[fe80::1%lo]:65535"},
		{true, "[fe80::1%1000000]:9", unix.AF_INET6, 28, 1_000_000, "[fe80::1%1000000]:9"},
	} {
		s := sockaddrs{v6: test.v6}
		var sa unix.RawSockaddrInet6
		sa.Scope_id = 77 // of what was sent before
		n, err := s.put(&sa, netip.MustParseAddrPort(test.addr))
		if err != nil || n != test.length || sa.Family != test.family {
			t.Errorf("%s: family %d, %d bytes, %v; want family %d, %d bytes", test.addr, sa.Family, n, err, test.family, test.length)
		}
		if test.v6 && sa.Scope_id != test.scope {
			t.Errorf("%s: scope %d, want %d", test.addr, sa.Scope_id, test.scope)
		}
		if port := (*[2]byte)(unsafe.Pointer(&sa.Port)); binary.BigEndian.Uint16(port[:]) != netip.MustParseAddrPort(test.addr).Port() {
			t.Errorf("%s: port % x, want it in network order", test.addr, *port)
		}
		if back := s.get(&sa); back.String() != test.back {
			t.Errorf("%s came back as %s, want %s", test.addr, back, test.back)
		}
	}
}

// What is known of interfaces is asked again after a while.
func TestZonesAreForgotten(t *testing.T) {
	var z zones
	now := time.Unix(1000, 0)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if i, err := z.index("lo", now); err != nil || i != uint32(lo.Index) {
		t.Fatalf("index of lo = %d, %v; want %d", i, err, lo.Index)
	}
	z.byName["lo"] = 77 // as if it had been another interface
	if i, _ := z.index("lo", now.Add(zonesLast)); i != 77 {
		t.Errorf("after a minute: %d, want what is known", i)
	}
	if i, _ := z.index("lo", now.Add(zonesLast+1)); i != uint32(lo.Index) {
		t.Errorf("after more than a minute: %d, want %d", i, lo.Index)
	}
	if name := z.name(4_000_000_000, now); name != "4000000000" {
		t.Errorf("name of an interface that is not = %s, want its number", name)
	}
}

func BenchmarkUDP(b *testing.B) {
	for _, bench := range []struct {
		name string
		cfg  Config
	}{
		{"GSO+GRO", Config{}},
		{"batches", Config{DisableGSO: true, DisableGRO: true}},
		{"portable", Config{Portable: true}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			from, to := listen(b, "127.0.0.1:0", bench.cfg), listen(b, "127.0.0.1:0", bench.cfg)
			const perRound = 4 * 45
			m := numbered(1, 45, 1432, to.LocalAddr())
			out, in := []Message{m, m, m, m}, make([]Message, 64)
			b.SetBytes(int64(4 * len(m.Buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := from.Send(out); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < perRound; {
					n, err := to.Receive(in)
					if err != nil {
						b.Fatal(err)
					}
					for i := range in[:n] {
						got += in[i].datagrams()
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perRound), "ns/datagram")
		})
	}
}

// TestShedThatTheSystemRefuses tells so, and the socket works on.
func TestShedThatTheSystemRefuses(t *testing.T) {
	from, to := listen(t, "127.0.0.1:0", Config{}), listen(t, "127.0.0.1:0", Config{})
	raw, err := to.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1) })
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Shed([]Shed{{From: from.LocalAddr(), Kind: 1}}); !errors.Is(err, unix.EPERM) {
		t.Errorf("%v, want %v", err, unix.EPERM)
	}
	m := numbered(1, 3, 100, to.LocalAddr())
	if err := from.Send([]Message{m}); err != nil {
		t.Fatal(err)
	}
	wantNumbered(t, datagrams(t, to, 3), m)
}
