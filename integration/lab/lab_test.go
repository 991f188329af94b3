//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come; silence is how long it
// watches for what must not.
const (
	patience = 30 * time.Second
	silence  = 150 * time.Millisecond
)

// home is a relay on a public segment and a host behind a NAT.
type home struct {
	*Network
	relay, a *Host
	nat      *NAT
	public   *Switch
	lan      *Switch
}

func newHome(t *testing.T, opts ...Option) *home {
	n := New(t)
	h := &home{Network: n, public: n.Switch("public"), lan: n.Switch("lan")}
	h.relay = n.Host("relay", On(h.public, "203.0.113.1/24", "2001:db8::1/64"), Route("fd01::/64", "2001:db8::10"))
	h.nat = n.NAT("nat",
		On(h.public, "203.0.113.10/24", "2001:db8::10/64"),
		On(h.lan, "192.168.1.1/24", "fd01::1/64"), opts...)
	h.a = n.Host("a", On(h.lan, "192.168.1.2/24", "fd01::2/64"), Gateway("192.168.1.1", "fd01::1"))
	return h
}

// socket is a UDP socket with the few verbs of a dialogue.
type socket struct {
	t *testing.T
	net.PacketConn
}

func (h *home) udp(t *testing.T, host *Host, addr string) socket {
	return socket{t, host.ListenPacket("udp", addr)}
}

func (s socket) send(text, to string) {
	s.t.Helper()
	if _, err := s.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		s.t.Fatal(err)
	}
}

// want receives text and returns its source.
func (s socket) want(text string) netip.AddrPort {
	s.t.Helper()
	s.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2000)
	n, from, err := s.ReadFrom(b)
	if err != nil {
		s.t.Fatalf("waiting for %q: %v", text, err)
	}
	if got := string(b[:n]); got != text {
		s.t.Fatalf("received %q, want %q", got, text)
	}
	ap := from.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (s socket) wantNothing() {
	s.t.Helper()
	s.SetReadDeadline(time.Now().Add(silence))
	b := make([]byte, 2000)
	n, from, err := s.ReadFrom(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatalf("received %q from %v (%v), want nothing", b[:n], from, err)
	}
}

var families = []struct {
	name           string
	relay, outside string // addresses
	service, own   string // the relay's socket, a's socket
}{
	{"IPv4", "203.0.113.1", "203.0.113.10", "203.0.113.1:7", "192.168.1.2:4242"},
	{"IPv6", "2001:db8::1", "2001:db8::10", "[2001:db8::1]:7", "[fd01::2]:4242"},
}

func TestEchoThroughNAT(t *testing.T) {
	h := newHome(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			relay, a := h.udp(t, h.relay, f.service), h.udp(t, h.a, f.own)
			a.send("ping", f.service)
			from := relay.want("ping")
			if want := netip.AddrPortFrom(netip.MustParseAddr(f.outside), 4242); from != want {
				t.Errorf("the relay saw %v, want %v: the outside address and the port kept", from, want)
			}
			relay.send("pong", from.String())
			a.want("pong")
		})
	}
}

func TestRoutedIPv6KeepsAddresses(t *testing.T) {
	h := newHome(t, RoutedIPv6())
	relay, a := h.udp(t, h.relay, "[2001:db8::1]:7"), h.udp(t, h.a, "[fd01::2]:4242")
	// Not from the relay's own port: see TestNATRefusesStrangers.
	h.udp(t, h.relay, "[2001:db8::1]:9").send("stranger", "[fd01::2]:4242")
	a.wantNothing()
	a.send("ping", "[2001:db8::1]:7")
	if from := relay.want("ping"); from.String() != "[fd01::2]:4242" {
		t.Errorf("the relay saw %v, want [fd01::2]:4242", from)
	}
	relay.send("pong", "[fd01::2]:4242")
	a.want("pong")
}

func TestNATRefusesStrangers(t *testing.T) {
	h := newHome(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			relay, a := h.udp(t, h.relay, f.service), h.udp(t, h.a, f.own)
			stranger := h.udp(t, h.relay, net.JoinHostPort(f.relay, "8"))
			outside := net.JoinHostPort(f.outside, "4242")
			// Not from the relay's own port: what is late, on a busy machine, would then be let in after the ping.
			early := h.udp(t, h.relay, net.JoinHostPort(f.relay, "9"))
			early.send("unasked", outside)
			a.wantNothing()
			// The refused packet must not have cost a its port.
			a.send("ping", f.service)
			if from := relay.want("ping"); from.String() != outside {
				t.Errorf("the relay saw %v, want %v", from, outside)
			}
			stranger.send("unasked", outside)
			a.wantNothing()
			relay.send("pong", outside)
			a.want("pong")
		})
	}
}

func TestTwoPeersPunchThroughNATs(t *testing.T) {
	h := newHome(t)
	other := h.Switch("other")
	h.NAT("nat2", On(h.public, "203.0.113.20/24"), On(other, "192.168.1.1/24"))
	b := h.udp(t, h.Host("b", On(other, "192.168.1.2/24"), Gateway("192.168.1.1")), "192.168.1.2:4242")
	a := h.udp(t, h.a, "192.168.1.2:4242")
	a.send("lost", "203.0.113.20:4242")
	b.send("through", "203.0.113.10:4242")
	a.want("through")
	a.send("back", "203.0.113.20:4242")
	b.want("back")
}

func TestFlushNATLosesMapping(t *testing.T) {
	h := newHome(t)
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	a.send("ping", "203.0.113.1:7")
	from := relay.want("ping")
	relay.send("pong", from.String())
	a.want("pong")
	h.nat.FlushNAT()
	relay.send("too late", from.String())
	a.wantNothing()
	a.send("again", "203.0.113.1:7")
	relay.send("welcome back", relay.want("again").String())
	a.want("welcome back")
}

func TestSymmetricNATMapsEachFlowAnew(t *testing.T) {
	h := newHome(t, Symmetric())
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	seen := make(map[netip.AddrPort]bool)
	for range 4 { // ports are random: all four alike is a chance of one in 10^14
		a.send("ping", "203.0.113.1:7")
		seen[relay.want("ping")] = true
		h.nat.FlushNAT()
	}
	if len(seen) < 2 {
		t.Errorf("four mappings were all %v", seen)
	}
}

func TestBlock(t *testing.T) {
	h := newHome(t)
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	relay6, a6 := h.udp(t, h.relay, "[2001:db8::1]:7"), h.udp(t, h.a, "[fd01::2]:4242")
	const outside = "203.0.113.10:4242"
	a.send("ping", "203.0.113.1:7")
	relay.want("ping")
	for _, c := range []struct {
		name    string
		what    Traffic
		out, in bool // whether packets pass from a to the relay, and back
		v6      bool // whether IPv6 passes
	}{
		{"another port", Traffic{Protocol: UDP, Port: 9}, true, true, true},
		{"another protocol", Traffic{Protocol: TCP}, true, true, true},
		{"the port", Traffic{Protocol: UDP, Port: 7}, false, false, false},
		{"inner address", Traffic{Protocol: UDP, From: "192.168.1.2", To: "203.0.113.1"}, false, false, true},
		{"outer address", Traffic{From: "203.0.113.10"}, false, false, true},
		{"only in", Traffic{From: "203.0.113.1", OneWay: true}, true, false, true},
		{"only out", Traffic{To: "203.0.113.0/24", Protocol: UDP, Port: 7, OneWay: true}, false, true, true},
		{"IPv6 prefix", Traffic{From: "2001:db8::/64", To: "fd01::/64"}, true, true, false},
		{"everything", Traffic{}, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.nat.Block(c.what)
			defer h.nat.Unblock()
			expect := func(s socket, passes bool, text string) {
				t.Helper()
				s.t = t
				if passes {
					s.want(text)
				} else {
					s.wantNothing()
				}
			}
			a.WriteTo([]byte("out"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.1:7")))
			expect(relay, c.out, "out")
			relay.send("in", outside)
			expect(a, c.in, "in")
			a6.send("out", "[2001:db8::1]:7")
			expect(relay6, c.v6, "out")
		})
	}
	a.send("free", "203.0.113.1:7")
	relay.want("free")
}

func TestBadTrafficIsRefused(t *testing.T) {
	for _, w := range []Traffic{
		{From: "nonsense"}, {To: "10.0.0.0/33"}, {From: "10.0.0.1", To: "fd01::1"}, {Port: 7}, {Protocol: 9}, {Protocol: ICMP, Port: 7},
	} {
		if _, err := w.rules(); err == nil {
			t.Errorf("%+v was accepted", w)
		}
	}
}

func TestMovingHost(t *testing.T) {
	h := newHome(t)
	relay := h.udp(t, h.relay, "203.0.113.1:7")
	ping := func(from string) {
		t.Helper()
		s := h.udp(t, h.a, from)
		s.send("ping", "203.0.113.1:7")
		relay.send("pong", relay.want("ping").String())
		s.want("pong")
	}
	ping("192.168.1.2:0")
	h.a.ReplaceAddr(h.lan, "192.168.1.2/24", "192.168.1.9/24")
	ping("192.168.1.9:0")

	s := h.udp(t, h.a, "192.168.1.9:0")
	h.a.Down(h.lan)
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.1:7"))
	if _, err := s.WriteTo([]byte("x"), to); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("sending without a network: %v, want %v", err, unix.ENETUNREACH)
	}
	h.a.Up(h.lan)
	ping("192.168.1.9:0")
	a6, relay6 := h.udp(t, h.a, "[fd01::2]:0"), h.udp(t, h.relay, "[2001:db8::1]:7")
	a6.send("six", "[2001:db8::1]:7")
	relay6.want("six")

	// From home to the public segment, as from Wi-Fi to another network.
	h.a.Detach(h.lan)
	h.a.Attach(h.public, "203.0.113.77/24")
	h.a.SetGateway("203.0.113.10")
	ping("203.0.113.77:0")
}

func TestRoutes(t *testing.T) {
	n := New(t)
	sw := n.Switch("segment")
	near := n.Host("near", On(sw, "192.0.2.1/24"), Route("198.51.100.0/24", "192.0.2.2"))
	far := n.Host("far", On(sw, "192.0.2.2/24"))
	far.Own("198.51.100.0/24")
	at := socket{t, far.ListenPacket("udp", "198.51.100.77:7")}
	from := socket{t, near.ListenPacket("udp", "192.0.2.1:4242")}
	from.send("to one of all those", "198.51.100.77:7")
	at.send("from it", at.want("to one of all those").String())
	if got := from.want("from it"); got.String() != "198.51.100.77:7" {
		t.Errorf("the answer is from %v", got)
	}

	near.SendNowhere("203.0.113.0/24", near.Interface(sw))
	c := near.Capture(near.Interface(sw))
	from.send("to nobody", "203.0.113.5:7")
	from.send("to nobody else", "203.0.113.6:7")
	sent := 0
	for _, frame := range c.Stop() {
		if bytes.Contains(frame.Data, []byte("to nobody")) {
			sent++
		}
	}
	if sent != 2 {
		t.Errorf("%d of 2 packets to nobody have left", sent)
	}
}

func TestMTU(t *testing.T) {
	h := newHome(t)
	h.relay.SetMTU(h.public, 1280)
	pc := h.udp(t, h.relay, "203.0.113.1:7").PacketConn.(*net.UDPConn)
	raw, err := pc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("203.0.113.10:9")
	if _, err := pc.WriteToUDPAddrPort(make([]byte, 1280-28), to); err != nil {
		t.Errorf("a packet of 1280 bytes: %v", err)
	}
	if _, err := pc.WriteToUDPAddrPort(make([]byte, 1280-27), to); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a packet of 1281 bytes: %v, want %v", err, unix.EMSGSIZE)
	}
}

func TestDialAndListen(t *testing.T) {
	h := newHome(t)
	l := h.relay.Listen("tcp", "203.0.113.1:80")
	c, err := h.a.Dial("tcp", "203.0.113.1:80")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, _, _ := net.SplitHostPort(s.RemoteAddr().String()); got != "203.0.113.10" {
		t.Errorf("accepted from %s, want the NAT", got)
	}
	c.Close()
	if _, err := h.a.Dial("tcp", "203.0.113.1:81"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a closed port: %v, want %v", err, unix.ECONNREFUSED)
	}
	if _, err := h.a.Dial("tcp", "relay:80"); err == nil {
		t.Error("a name was dialled")
	}
}

func TestCaptureSeesBytes(t *testing.T) {
	h := newHome(t)
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	a.send("before the capture", "203.0.113.1:7")
	relay.want("before the capture")
	one, all := h.relay.Capture(h.relay.Interface(h.public)), h.relay.Capture("any")
	other := h.relay.Capture("lo")
	a.send("on the wire", "203.0.113.1:7")
	relay.want("on the wire")
	for _, c := range []*Capture{one, all} {
		if !c.Contains([]byte("on the wire")) {
			t.Errorf("the packet is not among %d frames", len(c.Stop()))
		}
		if c.Contains([]byte("before the capture")) {
			t.Error("the capture saw the past")
		}
	}
	if other.Contains([]byte("on the wire")) {
		t.Error("the packet was seen on another interface")
	}
	for _, f := range one.Stop() {
		if strings.Contains(string(f.Data), "on the wire") && (f.Interface != "eth0" || f.Outgoing) {
			t.Errorf("the packet was seen on %q, outgoing %v; want received on eth0", f.Interface, f.Outgoing)
		}
	}
}

func TestCaptureIsComplete(t *testing.T) {
	h := newHome(t)
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	a.send("so that neighbours know each other", "203.0.113.1:7")
	relay.want("so that neighbours know each other")
	c := h.a.Capture("any")
	const count = 5000
	for range count {
		a.send("counted", "203.0.113.1:7")
	}
	got := 0
	for _, f := range c.Stop() {
		if f.Outgoing && strings.Contains(string(f.Data), "counted") {
			got++
		}
	}
	if got != count {
		t.Errorf("captured %d of the %d frames sent before Stop", got, count)
	}
}

func TestProcessAsNobody(t *testing.T) {
	n := New(t)
	sw := n.Switch("sw")
	h := n.Host("h", On(sw, "192.0.2.1/24"))
	dir := n.TempDir(Nobody)
	p := h.Command("sh", "-c", `id -u; id -g; grep -E "CapEff|NoNewPrivs|Groups" /proc/self/status
		test -e /dev/net/tun || echo no tun
		touch here && echo may write
		cat /proc/net/route; exit 3`)
	p.User, p.HideTUN, p.Dir = &Nobody, true, dir
	p.Start()
	err := p.Wait()
	if err == nil || err.Error() != "exit status 3" {
		t.Errorf("Wait: %v, want exit status 3", err)
	}
	got := strings.Join(strings.Fields(p.Output()), " ")
	for _, want := range []string{"65534 65534", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Groups: CapEff", "no tun", "may write", "eth0 000200C0"} {
		if !strings.Contains(got, want) {
			t.Errorf("the output has no %q:\n%s", want, got)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Errorf("/dev/net/tun is hidden from the test itself: %v", err)
	}
}

func TestProcessDialogue(t *testing.T) {
	n := New(t)
	p := n.Host("h").Command("sh", "-c", `trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`)
	p.Start()
	if err := p.WaitFor(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if err := p.WaitFor(t.Context(), "goodbye"); err != nil {
		t.Error(err)
	}
	if err := p.WaitFor(t.Context(), "never"); err == nil {
		t.Error("WaitFor found what was not written")
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v, want %v", err, os.ErrProcessDone)
	}
}

func TestRunLeavesNoBackground(t *testing.T) {
	out := New(t).Host("h").Run("sh", "-c", "sleep 1000 & echo $!")
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	if !ends(t, pid) {
		t.Error("a background process outlived the command that started it")
	}
}

func TestNestedDo(t *testing.T) {
	n := New(t)
	a, b := n.Host("a"), n.Host("b")
	where := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	outside := where()
	var inA, inB, back string
	a.Do(func() {
		inA = where()
		b.Do(func() { inB = where() })
		back = where()
	})
	if inA == outside || inB == outside || inA == inB || back != inA || where() != outside {
		t.Errorf("outside %s, a %s, b within a %s, a again %s, outside again %s", outside, inA, inB, back, where())
	}
}

// TestCleanup runs a lab to its end, and asks the kernel whether its namespaces are gone: a watcher
// outside holds one end of a link into it, which disappears only with the namespace.
func TestCleanup(t *testing.T) {
	watcher := New(t).Host("watcher")
	events, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	if err := netlink.LinkSubscribeAt(watcher.ns.handle, events, done); err != nil {
		t.Fatal(err)
	}
	// With the subscription's own, here and in the end: when that is closed nobody says.
	before := descriptors(t)
	var pids []int
	var dir, label string
	ended := t.Run("lab", func(t *testing.T) {
		h := newHome(t)
		label = h.label
		for i, ns := range []*namespace{h.fabric, h.a.ns, h.relay.ns, h.nat.ns} {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("watch%d", i)
			veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "watched", PeerNamespace: netlink.NsFd(ns.handle)}
			if err := watcher.ns.LinkAdd(veth); err != nil {
				t.Fatal(err)
			}
		}
		// What a careless test may leave open or running.
		h.a.ListenPacket("udp", ":0")
		h.relay.Listen("tcp", ":80")
		if _, err := h.a.Dial("tcp", "203.0.113.1:80"); err != nil {
			t.Fatal(err)
		}
		h.a.Capture("any")
		h.nat.Block(Traffic{})
		dir = h.TempDir(Nobody)
		p := h.a.Command("sh", "-c", `echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; echo ready; wait`)
		p.Start()
		if err := p.WaitFor(t.Context(), "ready"); err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(p.Output()) {
			var pid int
			if _, err := fmt.Sscan(f, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	})
	if !ended || len(pids) != 3 {
		t.Fatalf("the lab failed, or its processes %v are not three", pids)
	}
	gone := make(map[string]bool)
	for timeout := time.After(patience); len(gone) < 4; {
		select {
		case e := <-events:
			if e.Header.Type == unix.RTM_DELLINK {
				gone[e.Attrs().Name] = true
			}
		case <-timeout:
			t.Fatalf("namespaces remain: only %v are gone", gone)
		}
	}
	after := descriptors(t)
	close(done)
	for range events { // until the subscription has ended
	}
	for _, pid := range pids {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("process %d remains: %s", pid, stat)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of lab %s remains: %v", label, err)
	}
	if len(after) > len(before) {
		t.Errorf("%d descriptors after, %d before: %q, %q", len(after), len(before), after, before)
	}
}

// descriptors returns what the process has open.
func descriptors(t *testing.T) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // but for that of the directory, which is closed
			open = append(open, to)
		}
	}
	return open
}

// TestKilledRun kills a process that runs a lab, which is this test again, and looks at what it
// leaves: at once no process of its own, after the next New nothing.
func TestKilledRun(t *testing.T) {
	const victim = "LAB_TEST_VICTIM"
	if os.Getenv(victim) != "" {
		n := New(t)
		p := n.Host("h").Command("sh", "-c", `setsid sleep 1000 & echo "$$ $! ready"; wait`)
		p.Start()
		if err := p.WaitFor(t.Context(), "ready"); err != nil {
			t.Fatal(err)
		}
		fmt.Println(p.Output(), n.TempDir(Nobody))
		select {}
	}
	New(t) // skips where the victim would
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledRun$")
	cmd.Env = append(os.Environ(), victim+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child, orphan int
	var dir string
	_, scanErr := fmt.Fscan(out, &child, &orphan, new(string), &dir)
	cmd.Process.Kill()
	cmd.Wait()
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	if !ends(t, child) {
		t.Error("the process outlived its lab")
	}
	if !exists(fmt.Sprintf("/proc/%d", orphan)) || !exists(dir) {
		t.Fatal("nothing was left for New to remove")
	}
	New(t)
	if !ends(t, orphan) {
		t.Error("the orphan remains")
	}
	if exists(dir) {
		t.Errorf("%s remains", dir)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ends waits for the end of a process that need not be a child.
func ends(t *testing.T, pid int) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	return n == 1 && err == nil
}

func TestNATForgetsIdleFlows(t *testing.T) {
	h := newHome(t)
	h.nat.Sysctl("net/netfilter/nf_conntrack_udp_timeout", "0")
	relay, a := h.udp(t, h.relay, "203.0.113.1:7"), h.udp(t, h.a, "192.168.1.2:4242")
	a.send("ping", "203.0.113.1:7")
	from := relay.want("ping")
	relay.send("too late", from.String())
	a.wantNothing()
}

func TestNewSweepsAbandoned(t *testing.T) {
	n := New(t)
	// The owner of these is a process with our number that started at another time.
	dead := ownOwner()
	dead.start++
	living := ownOwner()
	foreign := ownOwner()
	foreign.pidns, foreign.start = foreign.pidns+1, foreign.start+1
	dir := func(o owner) string {
		d := filepath.Join(os.TempDir(), dirPrefix+o.String()+"-9-test")
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(d) })
		return d
	}
	deadDir, livingDir, foreignDir := dir(dead), dir(living), dir(foreign)
	p := n.Host("h").Command("sh", "-c", "export "+labelVariable+"="+dead.String()+"-9; exec sh -c 'echo ready; sleep 1000'")
	p.Start()
	if err := p.WaitFor(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	New(t)
	if exists(deadDir) {
		t.Error("the directory of a dead owner remains")
	}
	if !exists(livingDir) || !exists(foreignDir) {
		t.Error("the directory of a living or a foreign owner was removed")
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Error("the process of a dead owner remains")
	}
}
