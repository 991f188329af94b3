//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/internal/citest"
)

// T is what a lab needs of the test, a [testing.TB], or of the program that it is for. Fatalf and Skipf do
// not return.
type T interface {
	Helper()
	Context() context.Context // canceled before the functions given to Cleanup are called
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Network is one test's laboratory. Its methods are for the test's own goroutine.
type Network struct {
	t      T
	label  string     // marks what this lab leaves if it is killed
	fabric *namespace // holds every bridge, and the far end of every host's interface
	ports  int        // numbers the interfaces in fabric

	hosts    []*Host
	switches map[string]bool

	mu      sync.Mutex // guards what follows: connections are dialled in many goroutines
	closers []func()   // called last to first
}

// serial tells the labs of one process apart.
var serial atomic.Int64

// New returns an empty network, which is removed when the test ends, however it ends. It first
// removes what killed runs left. Where the process may not make network namespaces it skips the test,
// or fails it if the environment variable CI is not empty.
func New(t T) *Network {
	t.Helper()
	NeedRoot(t)
	sweepAbandoned()
	fabric, err := newNamespace()
	if err != nil {
		unavailable(t, fmt.Sprintf("network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err))
	}
	n := &Network{
		t:        t,
		label:    ownOwner().String() + "-" + strconv.FormatInt(serial.Add(1), 10),
		fabric:   fabric,
		switches: make(map[string]bool),
	}
	t.Cleanup(n.close)
	// The fabric only passes frames on; it must not speak itself.
	n.must(fabric.sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	n.must(fabric.sysctl("net/ipv6/conf/all/disable_ipv6", "1"))
	return n
}

// NeedRoot ends a test, as New does, where the process is not root: for those whose lab is in a process they start.
func NeedRoot(t T) {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "network namespaces need root")
	}
}

// NeedCommand ends a test likewise where a command is not there.
func NeedCommand(t T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		unavailable(t, err.Error())
	}
}

// unavailable ends a test that this machine cannot run.
func unavailable(t T, why string) {
	t.Helper()
	citest.Skipf(t, "lab: %s", why)
}

// must ends the test if err is not nil.
func (n *Network) must(err error) {
	if err != nil {
		n.t.Helper()
		n.t.Fatalf("lab: %v", err)
	}
}

// onClose has f called when the test ends, before whatever was registered earlier.
func (n *Network) onClose(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closers = append(n.closers, f)
}

// lastCloser takes the function to be called next, nil if there is none.
func (n *Network) lastCloser() func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.closers) == 0 {
		return nil
	}
	last := n.closers[len(n.closers)-1]
	n.closers = n.closers[:len(n.closers)-1]
	return last
}

func (n *Network) close() {
	for f := n.lastCloser(); f != nil; f = n.lastCloser() {
		f()
	}
	for _, h := range n.hosts {
		// A closed TCP connection whose far end is out of reach would keep the namespace for
		// minutes, sending its FIN again and again.
		h.ns.sysctl("net/ipv4/tcp_orphan_retries", "1")
		h.ns.close()
	}
	n.fabric.close()
	killMarked(func(label string) bool { return label == n.label })
}

// A Switch is an Ethernet segment: what is attached to it hears each other at layer 2.
type Switch struct {
	n      *Network
	name   string
	bridge *netlink.Bridge
}

// Switch makes a segment. Names say what is meant in errors and are unique within a network.
func (n *Network) Switch(name string) *Switch {
	n.t.Helper()
	if n.switches[name] {
		n.t.Fatalf("lab: there is a switch %q already", name)
	}
	n.switches[name] = true
	snooping := false // neighbour discovery would wait for a multicast querier
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("sw%d", len(n.switches))
	s := &Switch{n: n, name: name, bridge: &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}}
	n.wrap(n.fabric.LinkAdd(s.bridge), "making switch %s", name)
	n.wrap(n.fabric.LinkSetUp(s.bridge), "starting switch %s", name)
	return s
}

// wrap ends the test if err is not nil, saying what was being done.
func (n *Network) wrap(err error, format string, args ...any) {
	if err != nil {
		n.t.Helper()
		n.t.Fatalf("lab: %s: %v", fmt.Sprintf(format, args...), err)
	}
}

// port returns a new name for an interface of the fabric.
func (n *Network) port() string {
	n.ports++
	return "p" + strconv.Itoa(n.ports)
}

// TempDir returns a new directory owned by the user u (the zero User is root) that u can reach, unlike
// t.TempDir. It is removed when the test ends.
func (n *Network) TempDir(u User) string {
	n.t.Helper()
	dir, err := os.MkdirTemp("", dirPrefix+n.label+"-")
	n.must(err)
	n.onClose(func() { os.RemoveAll(dir) })
	n.must(os.Chown(dir, int(u.UID), int(u.GID)))
	return dir
}

// missing ends the test if err is not nil; if the reason is a kernel without the feature, as any
// machine that cannot run the test does.
func (n *Network) missing(err error, feature, modules string) {
	if err == nil {
		return
	}
	n.t.Helper()
	for _, e := range []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			unavailable(n.t, fmt.Sprintf("this kernel lacks %s (modules %s): %v", feature, modules, err))
		}
	}
	n.t.Fatalf("lab: %s: %v", feature, err)
}
