package tun

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/internal/citest"
	"github.com/adit-overlay/adit/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestInterfaceIsConfigured(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{
		Name:      "mine0",
		MTU:       1380,
		Addresses: prefixes("10.9.0.2/24", "fd00:9::2/64"),
		Routes:    prefixes("10.9.0.128/25", "172.16.5.9/12", "fd00:9::/64", "fd00:1::/32"),
	})
	if d.Name() != "mine0" || d.MTU() != 1380 {
		t.Errorf("device is %s with MTU %d", d.Name(), d.MTU())
	}
	ns.do(func() {
		l, err := netlink.LinkByName("mine0")
		if err != nil {
			t.Error(err)
			return
		}
		a := l.Attrs()
		if a.MTU != 1380 || a.TxQLen != 1000 || a.Flags&net.FlagUp == 0 || int(a.GSOMaxSize) != gsoMaxSize(1380) || int(a.GSOIPv4MaxSize) != gsoMaxSize(1380) {
			t.Errorf("link: %+v", a)
		}
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			t.Error(err)
		}
		var have []string
		for _, a := range list {
			have = append(have, a.IPNet.String())
			if a.Broadcast != nil || a.Flags&unix.IFA_F_TENTATIVE != 0 || a.IP.To4() == nil && a.Flags&unix.IFA_F_NODAD == 0 {
				t.Errorf("address %+v", a)
			}
		}
		// And no link-local address.
		if want := []string{"10.9.0.2/24", "fd00:9::2/64"}; !slices.Equal(have, want) {
			t.Errorf("addresses %v, want %v", have, want)
		}
	})
	want := []string{"172.16.0.0/12 dev mine0", "fd00:1::/32 dev mine0"}
	if have := ns.routes(RouteProtocol); !slices.Equal(have, want) {
		t.Errorf("routes %v, want %v", have, want)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if ns.hasLink("mine0") || len(ns.routes(RouteProtocol)) > 0 {
		t.Error("something is left after Close")
	}
}

func TestDefaultRouteLeavesUnderlayReachable(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	c := fullTunnel("full0")
	c.Bypass = append(c.Bypass, addrs("192.0.2.77", "192.0.2.2", "127.0.0.1", "::ffff:203.0.113.7")...)
	d := ns.open(c)
	want := []string{"0.0.0.0/1 dev full0", "128.0.0.0/1 dev full0", "::/1 dev full0", "8000::/1 dev full0"}
	if have := ns.routes(RouteProtocol); !slices.Equal(have, want) {
		t.Errorf("routes %v, want %v", have, want)
	}
	want = []string{"192.0.2.77/32 dev under0", "203.0.113.7/32 via 192.0.2.1 dev under0", "2001:db8:7::7/128 via 2001:db8::1 dev under0"}
	if have := ns.routes(BypassProtocol); !slices.Equal(have, want) {
		t.Errorf("bypass routes %v, want %v", have, want)
	}
	for dst, dev := range map[string]string{
		"203.0.113.7": "under0", "203.0.113.8": "full0",
		"2001:db8:7::7": "under0", "2001:db8:7::8": "full0",
	} {
		if got := ns.wayTo(dst); got != dev {
			t.Errorf("%s goes by %s, should go by %s", dst, got, dev)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left := ns.routes(BypassProtocol); len(left) > 0 {
		t.Errorf("left after Close: %v", left)
	}
}

// An underlay address that is not reachable when the device opens must not be drawn into it, and is reached when there
// is a way.
func TestUnreachableBypassIsNotDrawnIntoDevice(t *testing.T) {
	ns := newNamespace(t) // where nothing is reachable
	ns.open(fullTunnel("full0"))
	for _, a := range []string{"203.0.113.7", "2001:db8:7::7"} {
		ns.do(func() {
			if c, err := net.Dial("udp", net.JoinHostPort(a, "1")); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s: %v, %v; want it not to be reachable", a, c, err)
			}
		})
	}
	ns.underlay()
	ns.awaitBypass("203.0.113.7/32 via 192.0.2.1 dev under0", "2001:db8:7::7/128 via 2001:db8::1 dev under0")
}

// The host moves from one network to another with the device open. What leads around the device follows.
func TestBypassFollowsRoutesOfTheMachine(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	c := fullTunnel("full0")
	c.Bypass = append(c.Bypass, addrs("203.0.113.8")...)
	const own = "203.0.113.8/32" // somebody's own, and none of our business
	ns.route(own, "192.0.2.8", 0)
	d := ns.open(c)
	const via4, via6, other4 = "203.0.113.7/32 via 192.0.2.1 dev under0", "2001:db8:7::7/128 via 2001:db8::1 dev under0", "203.0.113.8/32 via 192.0.2.8 dev under0"
	const none4, none6 = "203.0.113.7/32", "2001:db8:7::7/128 dev lo"
	ns.awaitBypass(via4, other4, via6)
	const any4, any6 = "0.0.0.0/0", "::/0"
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"another gateway", func() {
			ns.route(any4, "192.0.2.9", 0)
			ns.unroute(any6, 0) // of IPv6 there would be two
			ns.route(any6, "2001:db8::9", 0)
		}, []string{"203.0.113.7/32 via 192.0.2.9 dev under0", other4, "2001:db8:7::7/128 via 2001:db8::9 dev under0"}},
		{"no gateway", func() {
			ns.unroute(any4, 0)
			ns.unroute(any6, 0)
		}, []string{none4, other4, none6}},
		{"one that is a neighbour", func() {
			ns.route(any4, "under1", 0)
			ns.route("2001:db8:7::/48", "under1", 0)
		}, []string{"203.0.113.7/32 dev under1", other4, "2001:db8:7::7/128 dev under1"}},
		{"a better one", func() {
			ns.route("203.0.113.0/24", "192.0.2.1", 20)
			ns.route("203.0.113.0/24", "192.0.2.3", 10)
			ns.route("2001:db8:7::/64", "2001:db8::1", 0)
		}, []string{"203.0.113.7/32 via 192.0.2.3 dev under0", other4, via6}},
		{"an IPv4 gateway with an IPv6 address", func() { ns.route("203.0.113.0/28", "2001:db8::4", 0) },
			[]string{"203.0.113.7/32 dev under0", other4, via6}}, // the list does not show such a gateway
		{"one that forbids", func() { ns.route("203.0.113.0/29", "prohibit", 0) },
			[]string{none4, other4, via6}},
		{"the interface is set down", func() { ns.withLink("under0", netlink.LinkSetDown) },
			[]string{none4, "203.0.113.8/32 dev under1", "2001:db8:7::7/128 dev under1"}},
		{"and up, with all it had", func() {
			ns.unroute("203.0.113.0/29", 0)
			ns.unroute(any4, 0)
			ns.unroute("2001:db8:7::/48", 0)
			ns.withLink("under0", netlink.LinkSetUp)
			ns.withLink("under0", func(l netlink.Link) error {
				return netlink.AddrReplace(l, &netlink.Addr{IPNet: ipNet(prefixes("2001:db8::2/64")[0]), Flags: unix.IFA_F_NODAD})
			})
			ns.route(any4, "192.0.2.1", 0)
			ns.route(any6, "2001:db8::1", 0)
			ns.route(own, "192.0.2.8", 0)
		}, []string{via4, other4, via6}},
		{"ours are removed by somebody", func() {
			for _, a := range []string{"203.0.113.7/32", own, "2001:db8:7::7/128"} {
				ns.unroute(a, d.link.bypass.owner)
			}
		}, []string{via4, other4, via6}},
	} {
		t.Log(step.name)
		step.do()
		ns.awaitBypass(step.want...)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	ns.awaitBypass()
}

// Addresses learnt while the device is open are led around it as well: there a lookup by the kernel would lead into it.
func TestBypassOfLearntAddress(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	d := ns.open(fullTunnel("full0"))
	const known4, known6 = "203.0.113.7/32 via 192.0.2.1 dev under0", "2001:db8:7::7/128 via 2001:db8::1 dev under0"
	for range 2 {
		for _, a := range addrs("198.51.100.1", "192.0.2.77", "2001:db8:9::9", "203.0.113.7", "192.0.2.2", "::ffff:10.9.0.2") {
			if err := d.Bypass(a); err != nil {
				t.Errorf("%v: %v", a, err)
			}
		}
	}
	ns.awaitBypass("192.0.2.77/32 dev under0", "198.51.100.1/32 via 192.0.2.1 dev under0", known4, known6, "2001:db8:9::9/128 via 2001:db8::1 dev under0")
	ns.route("0.0.0.0/0", "192.0.2.9", 0)
	ns.awaitBypass("192.0.2.77/32 dev under0", "198.51.100.1/32 via 192.0.2.9 dev under0", "203.0.113.7/32 via 192.0.2.9 dev under0", known6, "2001:db8:9::9/128 via 2001:db8::1 dev under0")

	// Of many the oldest go, but never those that were known from the beginning.
	first := addrs("100.64.0.0")[0]
	for a, i := first, 0; i < maxLearnt; a, i = a.Next(), i+1 {
		if err := d.Bypass(a); err != nil {
			t.Fatal(err)
		}
	}
	have := ns.routes(BypassProtocol)
	if len(have) != maxLearnt+2 || slices.Contains(have, "198.51.100.1/32 via 192.0.2.9 dev under0") || !slices.Contains(have, known6) {
		t.Errorf("%d bypass routes, want %d, the newest and those known from the beginning", len(have), maxLearnt+2)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	ns.awaitBypass()
	if err := d.Bypass(first); err != net.ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	live := fullTunnel("live0")
	live.Routes = prefixes("203.0.112.0/23", "2001:db8:7::/48")
	ns.open(live)
	liveRoutes := ns.routes(BypassProtocol)

	v := ns.startVictim()
	if !ns.hasLink("doomed0") || len(ns.routes(BypassProtocol)) != 2*len(liveRoutes) {
		t.Errorf("the victim made no routes: %v", ns.routes(BypassProtocol))
	}
	if err := v.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	v.Wait()
	if ns.hasLink("doomed0") {
		t.Error("the interface is left")
	}
	for _, r := range ns.routes(RouteProtocol) {
		if !strings.HasSuffix(r, "dev live0") {
			t.Errorf("left: %s", r)
		}
	}
	if n := len(ns.routes(BypassProtocol)); n != 2*len(liveRoutes) {
		t.Errorf("%d bypass routes: expected them to outlive the process, or else there is nothing to test", n)
	}
	ns.open(Config{Name: "next0"})
	if have := ns.routes(BypassProtocol); !slices.Equal(have, liveRoutes) {
		t.Errorf("bypass routes %v, want those of the device in use: %v", have, liveRoutes)
	}
}

// TestStaleBypassRoutes makes routes as devices left them whose interface is gone, or whose index now is another
// interface's; and one of somebody else's that has the very place of one to be made.
func TestStaleBypassRoutes(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	c := fullTunnel("next0")
	indexOf := func(name string) (index int) {
		ns.do(func() {
			if l, err := netlink.LinkByName(name); err != nil {
				t.Error(err)
			} else {
				index = l.Attrs().Index
			}
		})
		return index
	}
	d := ns.open(c)
	index := indexOf("next0") + 1 // the kernel counts
	d.Close()
	for dst, metric := range map[string]int{"198.51.100.1": indexOf("lo"), "198.51.100.2": 123456, "198.51.100.3": index} {
		ns.addRoute(dst, metric, BypassProtocol)
	}
	ns.addRoute("203.0.113.7", index, unix.RTPROT_STATIC)

	d = ns.open(c)
	if got := indexOf("next0"); got != index {
		t.Fatalf("the interface has index %d, and the routes were made for %d", got, index)
	}
	want := []string{"2001:db8:7::7/128 via 2001:db8::1 dev under0"}
	if have := ns.routes(BypassProtocol); !slices.Equal(have, want) {
		t.Errorf("bypass routes %v, want %v", have, want)
	}
	d.Close()
	if have := ns.routes(unix.RTPROT_STATIC); !slices.Equal(have, []string{"203.0.113.7/32 via 192.0.2.1 dev under0"}) {
		t.Errorf("somebody else's route was touched: %v", have)
	}
}

func TestFailedOpenIsUndone(t *testing.T) {
	ns := newNamespace(t)
	ns.underlay()
	c := fullTunnel("half0")
	c.Routes = append(c.Routes, prefixes("192.0.2.0/24")...) // the underlay's own
	if d, err := ns.tryOpen(c); err == nil {
		d.Close()
		t.Fatal("a route that is there was made again")
	} else if !strings.Contains(err.Error(), "192.0.2.0/24") || errors.Is(err, ErrUnavailable) {
		t.Errorf("error: %v", err)
	}
	left := append(ns.routes(RouteProtocol), ns.routes(BypassProtocol)...)
	if ns.hasLink("half0") || len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNameTaken(t *testing.T) {
	ns := newNamespace(t)
	ns.open(Config{Name: "mine0"})
	for _, name := range []string{"mine0", "lo"} {
		d, err := ns.tryOpen(Config{Name: name})
		if err == nil {
			d.Close()
			t.Fatalf("%s was opened twice", name)
		}
		if !strings.Contains(err.Error(), "taken") || errors.Is(err, ErrUnavailable) {
			t.Errorf("error: %v", err)
		}
	}
	for _, name := range []string{"a/b", strings.Repeat("x", 16)} {
		d, err := ns.tryOpen(Config{Name: name})
		if err == nil {
			d.Close()
			t.Fatalf("%q was opened", name)
		}
		if !strings.Contains(err.Error(), name) || errors.Is(err, ErrUnavailable) {
			t.Errorf("error: %v", err)
		}
	}
}

func TestUnavailable(t *testing.T) {
	ns := newNamespace(t)
	dropCapabilities := func() error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&h, &none[0])
	}
	for name, spoil := range map[string]func() error{
		"no capability": dropCapabilities,
		"another user": func() error {
			// Of this thread alone, which the wrapper of package syscall would not do.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				return errno
			}
			return nil
		},
		"no device file": func() error {
			return errors.Join(
				unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
				unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
				unix.Mount("none", "/dev/net", "tmpfs", 0, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns.do(func() {
				if err := Available(); err != nil {
					t.Errorf("before: %v", err)
				}
				if err := spoil(); err != nil {
					t.Errorf("arrange: %v", err)
					return
				}
				if err := Available(); !errors.Is(err, ErrUnavailable) {
					t.Errorf("Available: %v", err)
				}
				d, err := Open(Config{})
				if err == nil {
					d.Close()
				}
				if !errors.Is(err, ErrUnavailable) {
					t.Errorf("Open: %v", err)
				}
				t.Log(err)
			})
			if ns.hasLink(defaultName) {
				t.Error("an interface is left")
			}
		})
	}
}

func TestIPv6SwitchedOff(t *testing.T) {
	ns := newNamespace(t)
	ns.do(func() {
		for _, which := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0); err != nil {
				t.Error(err)
			}
		}
	})
	d, err := ns.tryOpen(Config{Addresses: prefixes("10.9.0.1/24", "fd00:9::1/64")})
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "IPv6 is switched off") {
		t.Errorf("error: %v", err)
	}
	ns.open(Config{Addresses: prefixes("10.9.0.1/24")})
}

// TestTCP sends 50 MB by the kernel's TCP through two devices, both ways one after the other.
func TestTCP(t *testing.T) {
	for _, addr := range []string{"10.9.0.2", "fd00:9::2"} {
		t.Run(addr, func(t *testing.T) {
			n := newTunnel(t)
			if err := n.transfer(net.JoinHostPort(addr, "5001"), nil); err != nil {
				t.Error(err)
			}
			n.stop()
			for way, p := range map[string]*pump{"there": n.there, "back": n.back} {
				if p.supers == 0 || p.cut > 0 || len(p.errs) > 0 {
					t.Errorf("%s: %d super-packets, %d cut, errors %v", way, p.supers, p.cut, p.errs)
				}
			}
			if a, b := n.devA.Malformed(), n.devB.Malformed(); a+b > 0 {
				t.Errorf("malformed: %d, %d", a, b)
			}
		})
	}
}

// TestTCPWithExtensionHeaders has the sender put a destination option before each TCP header.
func TestTCPWithExtensionHeaders(t *testing.T) {
	n := newTunnel(t)
	option := []byte{0, 0, 1, 4, 0, 0, 0, 0} // 8 bytes, all padding
	err := n.transfer("[fd00:9::2]:5001", func(c *net.TCPConn) error {
		rc, err := c.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(rc.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, string(option))
		}), err)
	})
	if err != nil {
		t.Error(err)
	}
	n.stop()
	if len(n.there.errs) > 0 || n.devA.Malformed() > 0 {
		t.Errorf("errors %v, malformed %d", n.there.errs, n.devA.Malformed())
	}
	// Whether the kernel leaves the cutting to the device differs from version to version.
	t.Logf("%d super-packets, %d segments cut", n.there.supers, n.there.cut)
}

const transferSize = 50 << 20

// transfer connects from a to addr in b, sends bytes there and has them sent back.
func (n *tunnel) transfer(addr string, set func(*net.TCPConn) error) (err error) {
	var l net.Listener
	n.b.do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		return err
	}
	defer l.Close()
	var server sync.WaitGroup
	defer server.Wait()
	var serverErr error
	var there, back [sha256.Size]byte
	server.Go(func() {
		serverErr = func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			if there, err = receive(c); err != nil {
				return err
			}
			return send(c)
		}()
	})
	var c net.Conn
	n.a.do(func() { c, err = net.Dial("tcp", addr) })
	if err != nil {
		l.Close()
		return err
	}
	defer c.Close()
	if set != nil {
		if err := set(c.(*net.TCPConn)); err != nil {
			return err
		}
	}
	if err := send(c); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if back, err = receive(c); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	server.Wait()
	h := sha256.New()
	io.CopyN(h, content(), transferSize)
	want := [sha256.Size]byte(h.Sum(nil))
	if serverErr == nil && (there != want || back != want) {
		return errors.New("other bytes arrived than were sent")
	}
	return serverErr
}

// content is the same endless stream each time.
func content() io.Reader { return rand.NewChaCha8([32]byte{1}) }

func send(c net.Conn) error {
	if _, err := io.CopyN(c, content(), transferSize); err != nil {
		return err
	}
	return c.(*net.TCPConn).CloseWrite()
}

func receive(c net.Conn) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err == nil && n != transferSize {
		err = fmt.Errorf("%d bytes of %d", n, transferSize)
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}

func TestUDP(t *testing.T) {
	n := newTunnel(t)
	for _, addr := range []string{"10.9.0.2", "fd00:9::2"} {
		var server net.PacketConn
		var c net.Conn
		var err error
		n.b.do(func() { server, err = net.ListenPacket("udp", net.JoinHostPort(addr, "5002")) })
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		n.a.do(func() { c, err = net.Dial("udp", server.LocalAddr().String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// The last needs fragments, for which the kernel completes the checksum itself.
		for _, size := range []int{0, 1, 1300, 4000} {
			sent := make([]byte, size)
			io.ReadFull(content(), sent)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 5000)
			server.SetReadDeadline(time.Now().Add(time.Minute))
			c.SetReadDeadline(time.Now().Add(time.Minute))
			k, from, err := server.ReadFrom(buf)
			if err != nil || !bytes.Equal(buf[:k], sent) {
				t.Fatalf("%s: %d bytes of %d arrived: %v", addr, k, size, err)
			}
			if _, err := server.WriteTo(buf[:k], from); err != nil {
				t.Fatal(err)
			}
			if k, err = c.Read(buf); err != nil || !bytes.Equal(buf[:k], sent) {
				t.Fatalf("%s: %d bytes of %d came back: %v", addr, k, size, err)
			}
		}
	}
}

func TestPing(t *testing.T) {
	if _, err := exec.LookPath("ping"); err != nil {
		citest.Skipf(t, "needs the ping command")
	}
	n := newTunnel(t)
	for _, addr := range []string{"10.9.0.2", "fd00:9::2"} {
		n.a.command("ping", "-c", "3", "-i", "0.01", "-s", "3000", addr)
	}
}

func TestDeliverErrorsConcernOnePacket(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{Name: "mine0", Addresses: prefixes("10.9.0.1/24")})
	in := d.Inlet()
	deliver := func(b []byte, o packet.Offload) error {
		return in.Deliver(copy(in.Lend(len(b)), b), o)
	}
	good := udpPacket(t)
	if err := deliver([]byte{0xff, 1, 2}, packet.Offload{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no IP packet: %v", err)
	}
	if err := deliver(good, packet.Offload{}); err != nil {
		t.Errorf("good packet: %v", err)
	}
	if err := in.Deliver(len(good)+1, packet.Offload{}); !errors.Is(err, ErrOffload) {
		t.Errorf("more than lent: %v", err)
	}
	ns.withLink("mine0", netlink.LinkSetDown)
	if err := deliver(good, packet.Offload{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("set down: %v", err)
	}
	ns.withLink("mine0", netlink.LinkSetUp)
	if err := deliver(good, packet.Offload{}); err != nil {
		t.Errorf("set up again: %v", err)
	}
	d.Close()
	if err := deliver(good, packet.Offload{}); err != net.ErrClosed {
		t.Errorf("closed: %v", err)
	}
}

func TestInletsDeliverAtTheSameTime(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{Addresses: prefixes("10.9.0.1/24")})
	good := udpPacket(t)
	var inlets, half sync.WaitGroup
	for range 4 {
		half.Add(1)
		inlets.Go(func() {
			in := d.Inlet()
			for i := 0; ; i++ {
				if i == 100 {
					half.Done()
				}
				err := in.Deliver(copy(in.Lend(len(good)), good), packet.Offload{})
				if err == net.ErrClosed && i >= 100 {
					return
				}
				if err != nil {
					t.Errorf("packet %d: %v", i, err)
					if i < 100 {
						half.Done()
					}
					return
				}
			}
		})
	}
	half.Wait()
	d.Close()
	inlets.Wait()
}

func TestCloseUnblocksRead(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{})
	var read sync.WaitGroup
	started := make(chan struct{})
	read.Go(func() {
		close(started)
		var b packet.Batch
		for {
			// The kernel may have packets of its own to send, such as multicast reports.
			if err := d.Read(&b); err != nil {
				if err != net.ErrClosed {
					t.Errorf("Read: %v", err)
				}
				return
			}
		}
	})
	<-started
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	read.Wait()
}

func TestReadEndsWhenInterfaceIsDeleted(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{Name: "mine0"})
	ns.withLink("mine0", netlink.LinkDel)
	var b packet.Batch
	for {
		if err := d.Read(&b); err != nil {
			if errors.Is(err, net.ErrClosed) {
				t.Error("a deleted interface is not a closed device")
			}
			break
		}
	}
	if err := d.Inlet().Deliver(0, packet.Offload{}); err == nil {
		t.Error("nothing was delivered to nowhere")
	}
}

func TestDeliverDoesNotAllocate(t *testing.T) {
	ns := newNamespace(t)
	d := ns.open(Config{Addresses: prefixes("10.9.0.1/24")})
	in := d.Inlet()
	good := udpPacket(t)
	if n := testing.AllocsPerRun(100, func() {
		if err := in.Deliver(copy(in.Lend(len(good)), good), packet.Offload{}); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("Deliver allocates %v times", n)
	}
}

func TestTwinsAreAlike(t *testing.T) {
	real, memory := reflect.TypeFor[*Device](), reflect.TypeFor[*Memory]()
	for _, name := range []string{"Read", "Inlet", "MTU", "Name", "Close"} {
		a, okA := real.MethodByName(name)
		b, okB := memory.MethodByName(name)
		if !okA || !okB || fmt.Sprint(a.Type)[len("func(*tun.Device"):] != fmt.Sprint(b.Type)[len("func(*tun.Memory"):] {
			t.Errorf("%s differs", name)
		}
	}
}
