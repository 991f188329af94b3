//go:build linux

package integration

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/strain"
	"github.com/adit-overlay/adit/integration/lab"
	"github.com/adit-overlay/adit/wire"

	// What the programs are made of: go test must not repeat an old result when it has changed.
	_ "github.com/adit-overlay/adit/integration/internal/service"
	_ "github.com/adit-overlay/adit/peer"
	_ "github.com/adit-overlay/adit/socks"
)

// soon is how long a test waits for what must come, on a machine that has other things to do.
const soon = time.Minute

// machine knows how busy the machine is: how soon something came, and whether anything was lost, is judged where it could have been
// in time.
var machine strain.Clock

func TestMain(m *testing.M) {
	flag.Parse()
	go machine.Run(context.Background())
	// Most tests wait for timers more than they compute.
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		p.Value.Set("4")
	}
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

var programsDir string

// programs builds what the labs run, once, into a directory that everybody may read.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "adit-integration-"); err != nil {
		return "", err
	}
	programsDir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	for _, main := range []string{"../cmd/adit", "./internal/box"} {
		if _, err := os.ReadDir(main); err != nil { // go test remembers what was read
			return "", err
		}
	}
	build := exec.Command("go", "build", "-o", dir+"/", "../cmd/adit", "./internal/box")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	return dir, nil
})

// An overlay is a lab with an adit network to be made in it.
type overlay struct {
	*lab.Network
	t        *testing.T
	programs string
	relayKey wire.PrivateKey
	members  []*member
}

// A member is who may be a peer of the overlay. It has a key; where it runs is said when it is started.
type member struct {
	name       string
	key        wire.PrivateKey
	ip4, ip6   netip.Addr
	advertises []string // networks it may advertise
}

func newOverlay(t *testing.T) *overlay {
	t.Helper()
	o := &overlay{Network: lab.New(t), t: t}
	var err error
	if o.programs, err = programs(); err != nil {
		t.Fatal(err)
	}
	o.relayKey = o.newKey()
	return o
}

// segment is an overlay whose hosts are all on one segment: 203.0.113.1, which is the relay's, and as many more as are named.
func segment(t *testing.T, names ...string) (o *overlay, relay *lab.Host, others []*lab.Host) {
	t.Helper()
	o = newOverlay(t)
	public := o.Switch("public")
	relay = o.Host("relay", lab.On(public, "203.0.113.1/24"))
	for i, name := range names {
		others = append(others, o.Host(name, lab.On(public, fmt.Sprintf("203.0.113.%d/24", i+2))))
	}
	return o, relay, others
}

// viaSegment is what a file says of a segment's relay.
func (o *overlay) viaSegment() string { return o.via("203.0.113.1:" + relayPort) }

func (o *overlay) newKey() wire.PrivateKey {
	o.t.Helper()
	k, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return k
}

// member adds a member: 10.9.0.N and fd00:9::N, where N counts from 2.
func (o *overlay) member(name string, advertises ...string) *member {
	o.t.Helper()
	n := len(o.members) + 2
	m := &member{
		name: name, key: o.newKey(), advertises: advertises,
		ip4: netip.AddrFrom4([4]byte{10, 9, 0, byte(n)}),
		ip6: netip.MustParseAddr(fmt.Sprintf("fd00:9::%x", n)),
	}
	o.members = append(o.members, m)
	return m
}

// addr is the member's overlay address of a family, "IPv4" or "IPv6".
func (m *member) addr(family string) string {
	if family == "IPv4" {
		return m.ip4.String()
	}
	return m.ip6.String()
}

// A program is a process that can be killed and started again.
type program struct {
	*lab.Process
	o       *overlay
	host    *lab.Host
	command []string
	user    *lab.User
	hideTUN bool
}

// rights is what a program may do.
type rights bool

const (
	asRoot   rights = true
	asNobody rights = false // and without /dev/net/tun
)

// start runs one of the overlay's programs in h with a file of its own: -c FILE comes after its arguments.
func (o *overlay) start(h *lab.Host, as rights, key wire.PrivateKey, file string, command ...string) *program {
	o.t.Helper()
	p := o.prepare(h, as, key, file, command...)
	p.again()
	return p
}

// prepare is start without starting.
func (o *overlay) prepare(h *lab.Host, as rights, key wire.PrivateKey, file string, command ...string) *program {
	o.t.Helper()
	p := &program{o: o, host: h}
	user := lab.User{}
	if as == asNobody {
		user = lab.Nobody
		p.user, p.hideTUN = &user, true
	}
	dir := o.TempDir(user)
	o.write(user, filepath.Join(dir, "own.key"), base64.StdEncoding.EncodeToString(key[:]))
	o.write(user, filepath.Join(dir, "adit.yaml"), file)
	p.command = append(command, "-c", filepath.Join(dir, "adit.yaml"))
	p.command[0] = filepath.Join(o.programs, p.command[0])
	return p
}

func (o *overlay) write(owner lab.User, path, text string) {
	o.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	if err := os.Chown(path, int(owner.UID), int(owner.GID)); err != nil {
		o.t.Fatal(err)
	}
}

// again starts the program, for the first time or after its end.
func (p *program) again() {
	p.o.t.Helper()
	p.Process = p.host.Command(p.command[0], p.command[1:]...)
	p.User, p.HideTUN = p.user, p.hideTUN
	p.Start()
}

// kill ends the program without a warning, and waits for its end.
func (p *program) kill() {
	p.Signal(syscall.SIGKILL)
	<-p.Done()
}

// says waits for text in the output.
func (p *program) says(text string) {
	p.o.t.Helper()
	ctx, cancel := context.WithTimeout(p.o.t.Context(), soon)
	defer cancel()
	if err := p.WaitFor(ctx, text); err != nil {
		p.o.t.Fatal(err)
	}
}

func (p *program) ready() {
	p.o.t.Helper()
	p.says("msg=ready")
}

// relayPort is where the relay listens.
const relayPort = "5040"

// relay runs the relay of all members added so far, which needs no rights.
func (o *overlay) relay(h *lab.Host) *program {
	o.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "name: hub\nprivate_key_file: own.key\ncontrol: own.sock\nlisten: \":%s\"\nmembers:\n", relayPort)
	for _, m := range o.members {
		allowed := append([]string{m.ip4.String() + "/32", m.ip6.String() + "/128"}, m.advertises...)
		fmt.Fprintf(&b, "  - {name: %s, public_key: %q, allowed_ips: %s}\n", m.name, m.key.Public(), list(allowed))
	}
	p := o.start(h, asNobody, o.relayKey, b.String(), "adit", "relay")
	p.ready()
	return p
}

// file is the configuration of a member; lines add to it.
func (m *member) file(lines ...string) string {
	return fmt.Sprintf("name: %s\nprivate_key_file: own.key\ncontrol: own.sock\naddresses: [%v/24, \"%v/64\"]\n%s\n", m.name, m.ip4, m.ip6, strings.Join(lines, "\n"))
}

// via is the line for the overlay's relay at an underlay address.
func (o *overlay) via(relay string) string {
	return fmt.Sprintf("relays: [{public_key: %q, endpoint: %q}]", o.relayKey.Public(), relay)
}

// knows is the line for other peers, of entries made by entry.
func knows(entries ...string) string { return "peers: [" + strings.Join(entries, ", ") + "]" }

// entry is what a file says of another peer; endpoint may be empty.
func entry(m *member, endpoint string, alsoAllowed ...string) string {
	allowed := append([]string{m.ip4.String() + "/32", m.ip6.String() + "/128"}, alsoAllowed...)
	e := fmt.Sprintf("{name: %s, public_key: %q, allowed_ips: %s", m.name, m.key.Public(), list(allowed))
	if endpoint != "" {
		e += fmt.Sprintf(", endpoint: %q", endpoint)
	}
	return e + "}"
}

// list is a YAML list of texts.
func list(texts []string) string {
	var quoted []string
	for _, s := range texts {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// tun runs `adit up` with a TUN device.
func (o *overlay) tun(h *lab.Host, m *member, lines ...string) *program {
	o.t.Helper()
	return o.start(h, asRoot, m.key, m.file(append(lines, "mode: tun")...), "adit", "up")
}

// socksAt is where rootless peers offer SOCKS5, in their own namespaces.
const socksAt = "127.0.0.1:1080"

// rootless runs `adit up` as nobody, with a SOCKS5 listener.
func (o *overlay) rootless(h *lab.Host, m *member, lines ...string) *program {
	o.t.Helper()
	return o.start(h, asNobody, m.key, m.file(lines...), "adit", "up", "--socks", socksAt)
}

// box runs the program with a peer in it, as nobody. Args are its flags.
func (o *overlay) box(h *lab.Host, m *member, args []string, lines ...string) *program {
	o.t.Helper()
	return o.start(h, asNobody, m.key, m.file(lines...), append([]string{"box"}, args...)...)
}
