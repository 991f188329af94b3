//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/lab"
)

// alone is a host with nothing but its loopback.
func alone(t *testing.T) (*overlay, *lab.Host) {
	o := newOverlay(t)
	return o, o.Host("alone")
}

// command runs adit as nobody, without /dev/net/tun.
func (o *overlay) command(h *lab.Host, args ...string) *program {
	o.t.Helper()
	nobody := lab.Nobody
	p := &program{o: o, host: h, command: append([]string{o.programs + "/adit"}, args...), user: &nobody, hideTUN: true}
	p.again()
	return p
}

func TestDemoOnce(t *testing.T) {
	t.Parallel()
	o, h := alone(t)
	p := o.command(h, "demo", "--once")
	p.wantExit(t, 0)
	for _, want := range []string{
		"fetched     http://web.adit/ ", "fetched     http://10.9.0.3/ ", "fetched     http://[fd00:9::3]/ ",
		"latency     ", "throughput  ", "relay       127.0.0.1:", "2 of 2 members online",
		"web         netstack, [10.9.0.3/24 fd00:9::3/64]", "laptop      netstack, [10.9.0.2/24 fd00:9::2/64]",
	} {
		if !strings.Contains(p.Output(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	t.Logf("\n%s", p.Output())
}

func TestDemo(t *testing.T) {
	t.Parallel()
	o, h := alone(t)
	p := o.command(h, "demo")
	p.says("Ctrl-C ends it.")
	if !strings.Contains(p.Output(), "curl --socks5-hostname 127.0.0.1:1080 http://web.adit/") {
		t.Errorf("the output does not say what to try:\n%s", p.Output())
	}
	_, err := exec.LookPath("curl")
	for _, url := range []string{"http://web.adit/", "http://10.9.0.3/", "http://[fd00:9::3]/"} {
		var page string
		if err == nil {
			page = h.Run("curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--socks5-hostname", socksAt, url)
		} else {
			page = fetch(t, bySOCKS(h), url)
		}
		if !strings.Contains(page, "<h1>It works</h1>") {
			t.Errorf("%s: got %q", url, page)
		}
	}
	p.end(t, 0)
}

// fetch is what curl does.
func fetch(t *testing.T, by access, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	resp, err := by.get(ctx, u.Hostname(), u.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// TestModes has a peer choose its mode, and be told.
func TestModes(t *testing.T) {
	t.Parallel()
	const listens = `listen: ":5040"` // enough to be ready
	for _, c := range []struct {
		name string
		as   rights
		hide bool
		mode string
		want string
	}{
		{"auto as root", asRoot, false, "auto", "mode=tun because="},
		{"auto as nobody", asNobody, false, "auto", "mode=netstack because="},
		{"auto as nobody without the device", asNobody, true, "auto", "no /dev/net/tun"},
		{"auto as root without the device", asRoot, true, "auto", "no /dev/net/tun"},
		{"netstack as root", asRoot, false, "netstack", "mode=netstack because="},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, h := alone(t)
			m := o.member("peer")
			p := o.prepare(h, c.as, m.key, m.file(listens), "adit", "up", "--mode", c.mode)
			p.hideTUN = c.hide
			p.again()
			p.says(c.want)
			p.ready()
			p.end(t, 0)
			t.Log(strings.SplitN(p.Output(), "\n", 2)[0])
		})
	}
	for name, hide := range map[string]bool{"tun as nobody": false, "tun as nobody without the device": true} {
		t.Run(name, func(t *testing.T) {
			o, h := alone(t)
			m := o.member("peer")
			p := o.prepare(h, asNobody, m.key, m.file(listens), "adit", "up", "--mode", "tun")
			p.hideTUN = hide
			p.again()
			p.wantExit(t, 1)
			out := p.Output()
			if !strings.HasPrefix(out, "adit: ") || strings.Count(out, "\n") != 1 || !strings.Contains(out, "netstack") {
				t.Errorf("the error is not one line that says what would be right:\n%s", out)
			}
			t.Log(out)
		})
	}
}

// TestNothingIsLeft compares a host's network before a peer with a TUN device and after it.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*testing.T, *program)
	}{
		{"SIGTERM", func(t *testing.T, p *program) { p.end(t, 0) }},
		{"SIGKILL", func(_ *testing.T, p *program) { p.kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOverlay(t)
			h := o.Host("host", lab.On(o.Switch("public"), "203.0.113.1/24", "2001:db8::1/64"))
			m, far := o.member("peer"), o.member("far")
			before := network(t, h)
			p := o.tun(h, m, `listen: ":5040"`, knows(entry(far, "", "192.168.9.0/24")))
			p.ready()
			during := network(t, h)
			for _, want := range []string{"adit0", "10.9.0.2", "fd00:9::2", "192.168.9.0/24"} {
				if !strings.Contains(during, want) {
					t.Errorf("%s is not to be seen while the peer is up:\n%s", want, during)
				}
			}
			c.end(t, p)
			wantNetwork(t, h, before)
		})
	}
}

// network is a host's interfaces, addresses, routes, rules and tables of packet filters, but for what the kernel makes of link-local addresses
// at its leisure.
func network(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	var errs []error
	h.Do(func() {
		links, err := netlink.LinkList()
		errs = append(errs, err)
		for _, l := range links {
			fmt.Fprintln(&b, "link", l.Attrs().Name, l.Attrs().Flags, l.Attrs().MTU)
		}
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		errs = append(errs, err)
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() {
				fmt.Fprintln(&b, "address", a.IPNet, "link", a.LinkIndex)
			}
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		errs = append(errs, err)
		for _, r := range routes {
			if r.Table == unix.RT_TABLE_LOCAL {
				continue // follows the addresses, sooner or later
			}
			if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
				fmt.Fprintln(&b, "route protocol", int(r.Protocol), "type", r.Type, "metric", r.Priority, r)
			}
		}
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		errs = append(errs, err)
		for _, r := range rules {
			fmt.Fprintln(&b, "rule", r)
		}
		filters, err := nftables.New()
		errs = append(errs, err)
		if err == nil {
			tables, err := filters.ListTables()
			errs = append(errs, err)
			for _, table := range tables {
				fmt.Fprintln(&b, "table", table.Family, table.Name)
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wantNetwork waits for the network of h to be as it was: the kernel removes the device of a killed process
// when it gets to it.
func wantNetwork(t *testing.T, h *lab.Host, before string) {
	t.Helper()
	awaitNetwork(t, before, func() string { return network(t, h) })
}

func awaitNetwork(t *testing.T, want string, now func() string) {
	t.Helper()
	for start := time.Now(); now() != want; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > soon {
			t.Fatalf("the network of the host was\n%s\nand is\n%s", want, now())
		}
	}
}

// wantExit waits for the end of a program, and wants it to exit with code.
func (p *program) wantExit(t *testing.T, code int) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(3 * soon):
		t.Fatal("the program does not end")
	}
	got, err := 0, p.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Fatalf("exit code %d (%v), want %d; the output:\n%s", got, err, code, p.Output())
	}
}

// end asks a program to end.
func (p *program) end(t *testing.T, code int) {
	t.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wantExit(t, code)
}
