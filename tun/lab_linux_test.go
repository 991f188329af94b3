package tun

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/adit-overlay/adit/internal/citest"
	"github.com/adit-overlay/adit/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
		return
	}
	goleak.VerifyTestMain(m)
}

// needPrivilege skips the test where it may not make network namespaces and devices.
func needPrivilege(t *testing.T) {
	t.Helper()
	if err := Available(); err != nil {
		citest.Skipf(t, "%v", err)
	}
	if os.Geteuid() != 0 {
		citest.Skipf(t, "needs root, to make network namespaces")
	}
}

// A namespace is a network namespace that lives as long as the test.
type namespace struct {
	t      *testing.T
	handle netns.NsHandle
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	needPrivilege(t)
	ns := &namespace{t: t}
	onThread(func() {
		h, err := netns.New()
		if err != nil {
			t.Errorf("new namespace: %v", err)
			return
		}
		ns.handle = h
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { ns.handle.Close() })
	ns.do(func() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Errorf("set up loopback: %v", err)
		}
	})
	return ns
}

// onThread runs f on a thread of its own, which ends with it, whatever f made of it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// do runs f in the namespace. f must not call FailNow and the like.
func (ns *namespace) do(f func()) {
	ns.t.Helper()
	onThread(func() {
		if err := netns.Set(ns.handle); err != nil {
			ns.t.Errorf("enter namespace: %v", err)
			return
		}
		f()
	})
}

// open opens a device in the namespace and closes it at the end of the test.
func (ns *namespace) open(c Config) *Device {
	ns.t.Helper()
	d, err := ns.tryOpen(c)
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			ns.t.Error(err)
		}
	})
	return d
}

func (ns *namespace) tryOpen(c Config) (d *Device, err error) {
	ns.do(func() { d, err = Open(c) })
	return d, err
}

// command runs a command in the namespace.
func (ns *namespace) command(name string, args ...string) {
	ns.t.Helper()
	var out []byte
	var err error
	ns.do(func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		ns.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// withLink does something to the interface of that name.
func (ns *namespace) withLink(name string, f func(netlink.Link) error) {
	ns.t.Helper()
	ns.do(func() {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = f(l)
		}
		if err != nil {
			ns.t.Errorf("interface %s: %v", name, err)
		}
	})
}

// addRoute adds a route to one IPv4 address by the underlay's gateway.
func (ns *namespace) addRoute(dst string, metric int, proto netlink.RouteProtocol) {
	ns.t.Helper()
	ns.do(func() {
		err := netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.ParseIP(dst).To4(), Mask: net.CIDRMask(32, 32)}, Gw: net.ParseIP("192.0.2.1"),
			Priority: metric, Protocol: proto,
		})
		if err != nil {
			ns.t.Errorf("add route to %s: %v", dst, err)
		}
	})
}

// route makes or replaces a route by a gateway, an interface, or none: "prohibit".
func (ns *namespace) route(dst, by string, metric int) {
	ns.t.Helper()
	r := netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Priority: metric}
	ns.do(func() {
		gateway, err := netip.ParseAddr(by)
		switch {
		case err == nil && gateway.Is4() == (r.Dst.IP.To4() != nil):
			r.Gw = gateway.AsSlice()
		case err == nil:
			l, err := netlink.LinkByName("under0")
			if err != nil {
				ns.t.Error(err)
				return
			}
			r.LinkIndex, r.Via = l.Attrs().Index, &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: gateway.AsSlice()}
		case by == "prohibit":
			r.Type = unix.RTN_PROHIBIT
		default:
			l, err := netlink.LinkByName(by)
			if err != nil {
				ns.t.Error(err)
				return
			}
			r.LinkIndex, r.Scope = l.Attrs().Index, netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(&r); err != nil {
			ns.t.Errorf("route to %s by %s: %v", dst, by, err)
		}
	})
}

// unroute removes a route.
func (ns *namespace) unroute(dst string, metric int) {
	ns.t.Helper()
	ns.do(func() {
		if err := netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Priority: metric, Scope: netlink.SCOPE_NOWHERE}); err != nil {
			ns.t.Errorf("remove route to %s: %v", dst, err)
		}
	})
}

// wayTo is the name of the interface by which the kernel sends packets for dst.
func (ns *namespace) wayTo(dst string) (name string) {
	ns.t.Helper()
	ns.do(func() {
		routes, err := netlink.RouteGet(net.ParseIP(dst))
		if err != nil {
			ns.t.Errorf("route to %s: %v", dst, err)
			return
		}
		l, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			ns.t.Errorf("interface of the route to %s: %v", dst, err)
			return
		}
		name = l.Attrs().Name
	})
	return name
}

// hasLink reports whether there is an interface of that name.
func (ns *namespace) hasLink(name string) (has bool) {
	ns.do(func() {
		_, err := netlink.LinkByName(name)
		has = err == nil
	})
	return has
}

// routes lists the routes of both families with that protocol number: "10.0.0.0/8 dev x", or "... via 192.0.2.1 dev x".
func (ns *namespace) routes(proto netlink.RouteProtocol) (list []string) {
	ns.t.Helper()
	ns.do(func() {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			rs, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: proto}, netlink.RT_FILTER_PROTOCOL)
			if err != nil {
				ns.t.Errorf("list routes: %v", err)
			}
			for _, r := range rs {
				s := r.Dst.String()
				if r.Gw != nil {
					s += " via " + r.Gw.String()
				}
				if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
					s += " dev " + l.Attrs().Name
				}
				list = append(list, s)
			}
		}
	})
	return list
}

// awaitBypass waits for the bypass routes to be these.
func (ns *namespace) awaitBypass(want ...string) {
	ns.t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		have := ns.routes(BypassProtocol)
		if slices.Equal(have, want) {
			return
		}
		if time.Since(start) > time.Minute {
			ns.t.Fatalf("bypass routes %q, want %q", have, want)
		}
	}
}

// underlay makes an interface with a default route in both families.
func (ns *namespace) underlay() {
	ns.t.Helper()
	ns.do(func() {
		err := func() error {
			// Both ends in one namespace: no packet needs to arrive.
			v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "under0"}, PeerName: "under1"}
			if err := netlink.LinkAdd(v); err != nil {
				return err
			}
			for _, name := range []string{"under0", "under1"} {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(l); err != nil {
					return err
				}
			}
			for _, s := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
				a := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(s)), Flags: unix.IFA_F_NODAD}
				if err := netlink.AddrAdd(v, a); err != nil {
					return err
				}
			}
			for dst, gw := range map[string]string{"0.0.0.0/0": "192.0.2.1", "::/0": "2001:db8::1"} {
				r := &netlink.Route{LinkIndex: v.Index, Dst: ipNet(netip.MustParsePrefix(dst)), Gw: netip.MustParseAddr(gw).AsSlice()}
				if err := netlink.RouteAdd(r); err != nil {
					return fmt.Errorf("default route via %s: %w", gw, err)
				}
			}
			return nil
		}()
		if err != nil {
			ns.t.Errorf("make underlay: %v", err)
		}
	})
	if ns.t.Failed() {
		ns.t.FailNow()
	}
}

// A pump carries packets from one device to another as they are, and counts the super-packets.
type pump struct {
	supers, cut int
	errs        []error
	done        sync.WaitGroup
}

func startPump(from, to *Device) *pump {
	p := new(pump)
	p.done.Go(func() {
		in := to.Inlet()
		var b packet.Batch
		for from.Read(&b) == nil {
			for i := range b.Packets {
				q := &b.Packets[i]
				if q.Super() {
					p.supers++
				}
				if len(q.Pieces) > 1 {
					p.cut++
				}
				room := in.Lend(q.Len())
				n := 0
				for _, piece := range q.Pieces {
					n += copy(room[n:], piece)
				}
				if err := in.Deliver(n, q.Offload); err != nil && len(p.errs) < 10 {
					p.errs = append(p.errs, err)
				}
			}
		}
	})
	return p
}

// A tunnel is two namespaces whose devices are joined by pumps.
type tunnel struct {
	a, b       *namespace
	devA, devB *Device
	there      *pump // from a to b
	back       *pump
}

func newTunnel(t *testing.T) *tunnel {
	t.Helper()
	n := &tunnel{a: newNamespace(t), b: newNamespace(t)}
	n.devA = n.a.open(Config{Addresses: prefixes("10.9.0.1/24", "fd00:9::1/64")})
	n.devB = n.b.open(Config{Addresses: prefixes("10.9.0.2/24", "fd00:9::2/64")})
	n.there = startPump(n.devA, n.devB)
	n.back = startPump(n.devB, n.devA)
	t.Cleanup(n.stop)
	return n
}

// stop closes both devices and waits for the pumps, whose counts may be read then.
func (n *tunnel) stop() {
	n.devA.Close()
	n.devB.Close()
	n.there.done.Wait()
	n.back.done.Wait()
}

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func addrs(list ...string) (as []netip.Addr) {
	for _, s := range list {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// victimEnv has the test binary be the process that opens a device and is killed.
const victimEnv = "ADIT_TUN_TEST_VICTIM"

func fullTunnel(name string) Config {
	return Config{
		Name:      name,
		Addresses: prefixes("10.9.0.2/24", "fd00:9::2/64"),
		Routes:    prefixes("0.0.0.0/0", "::/0"),
		Bypass:    addrs("203.0.113.7", "2001:db8:7::7"),
	}
}

func victim() {
	if _, err := Open(fullTunnel("doomed0")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	io.Copy(io.Discard, os.Stdin) // ends with the test if that fails to kill
}

// startVictim starts a victim in the namespace and returns when its device is open.
func (ns *namespace) startVictim() *exec.Cmd {
	ns.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() { stdin.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.do(func() { err = cmd.Start() })
	if err != nil {
		ns.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "open\n" {
		cmd.Wait()
		ns.t.Fatalf("victim: %q %v", line, err)
	}
	return cmd
}
