//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/adit-overlay/adit/integration/lab"
	"github.com/adit-overlay/adit/integration/soak/traffic"
	"github.com/adit-overlay/adit/wire"
)

// tenancy is how a member is in the overlay.
type tenancy string

const (
	withTUN   tenancy = "adit up with a TUN device" // the agent uses the kernel's network
	withStack tenancy = "a program with a peer in it"
	withProxy tenancy = "adit up with a proxy" // as nobody; the agent is behind the proxy
)

// A tenant is a member in the lab.
type tenant struct {
	*member
	kind    tenancy
	house   *house
	key     wire.PrivateKey
	control string   // the agent's socket
	peer    *program // adit up; nil where the peer is in the agent's process
	agent   *program
}

// owns is what a file says of the member's addresses.
func (t *tenant) owns() string { return fmt.Sprintf("[%v/32, \"%v/128\"]", t.addrs[0], t.addrs[1]) }

// entry is the line with which another's file says where the member is.
func (t *tenant) entry(endpoint string) string {
	return fmt.Sprintf("peers: [{name: %s, public_key: %q, allowed_ips: %s, endpoint: %q}]", t.name, t.key.Public(), t.owns(), endpoint)
}

// prepare makes the programs of a tenant, of whose file lines are a part.
func (l *labGround) prepare(t *tenant, lines ...string) {
	file := fmt.Sprintf("name: %s\nprivate_key_file: own.key\ncontrol: own.sock\naddresses: [%v/24, \"%v/64\"]\nrekey_after: %v\nrelays: [{public_key: %q, endpoint: %q}]\n%s\n",
		t.name, t.addrs[0], t.addrs[1], rekeyAfter, l.relayKey.Public(), relayAt, strings.Join(lines, "\n"))
	t.control = filepath.Join(l.TempDir(lab.Nobody), "control")
	agent := []string{"member", "-control", t.control, "-name", t.name}
	h := t.house.Host
	switch t.kind {
	case withTUN:
		t.peer = l.program(t.name+": adit up, TUN", h, nil, t.key, file+"mode: tun\n", "adit", "up")
		t.agent = &program{ground: l, name: t.name + ": traffic", host: h}
		agent = append(agent, "-on", fmt.Sprintf("%v,%v", t.addrs[0], t.addrs[1]))
	case withStack:
		t.agent = l.program(t.name+": peer in a program", h, &lab.Nobody, t.key, file+"mode: netstack\n", agent...)
		agent = t.agent.command
		t.agent.shows = false
	case withProxy:
		t.peer = l.program(t.name+": adit up, SOCKS5", h, &lab.Nobody, t.key, file+"mode: netstack\n", "adit", "up", "--socks", proxyAt)
		t.agent = &program{ground: l, name: t.name + ": traffic", host: h}
		agent = append(agent, "-socks", proxyAt)
	}
	if t.peer != nil {
		t.peer.tenant = t
		agent[0] = filepath.Join(l.programs, agent[0])
	}
	t.agent.tenant, t.agent.command = t, agent
}

// startAgent starts the agent of t, and has it and the others meet.
func (l *labGround) startAgent(t *tenant) error {
	t.agent.start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := traffic.Control(ctx, t.control)
	if err != nil {
		return fmt.Errorf("%w; it wrote:\n%s", err, t.agent.wrote())
	}
	return l.company.arrive(t.member, c)
}

// A program is run again and again, as one process after the other.
type program struct {
	ground  *labGround
	name    string
	host    *lab.Host
	command []string
	user    *lab.User
	tenant  *tenant // whose it is; nil for the relay
	shows   bool    // its goroutines are seen only when it is made to show them

	mu      sync.Mutex // guards what follows
	process *lab.Process
	asked   bool // to end
}

// program prepares one of adit's programs with a file of its own: -c FILE comes after its arguments.
func (l *labGround) program(name string, h *lab.Host, as *lab.User, key wire.PrivateKey, file string, command ...string) *program {
	owner := lab.User{}
	if as != nil {
		owner = *as
	}
	dir := l.TempDir(owner)
	for name, text := range map[string]string{"own.key": base64.StdEncoding.EncodeToString(key[:]), "adit.yaml": file} {
		path := filepath.Join(dir, name)
		l.must(os.WriteFile(path, []byte(text), 0o600))
		l.must(os.Chown(path, int(owner.UID), int(owner.GID)))
	}
	command = append(command, "-c", filepath.Join(dir, "adit.yaml"))
	command[0] = filepath.Join(l.programs, command[0])
	return &program{ground: l, name: name, host: h, command: command, user: as, shows: true}
}

func (p *program) start() {
	process := p.host.Command(p.command[0], p.command[1:]...)
	process.User, process.HideTUN = p.user, p.user != nil
	process.Start()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process, p.asked = process, false
}

// current returns the process; ask says that its end, from now on, is asked for.
func (p *program) current(ask bool) *lab.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = p.asked || ask
	return p.process
}

func (p *program) ready() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.ground.must(p.current(false).WaitFor(ctx, "msg=ready"))
}

func (p *program) kill() {
	process := p.current(true)
	process.Signal(syscall.SIGKILL)
	<-process.Done()
}

// orderly is how long a process may take to end, on a machine that has other things to do.
const orderly = 30 * time.Second

// end asks the process to end, and wants that to happen in order.
func (p *program) end() error {
	process := p.current(true)
	process.Signal(syscall.SIGTERM)
	select {
	case <-process.Done():
	case <-time.After(orderly):
		p.showGoroutines()
		return fmt.Errorf("%s does not end within %v when asked to; it wrote:\n%s", p.name, orderly, p.wrote())
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("%s, asked to end: %w; it wrote:\n%s", p.name, err, p.wrote())
	}
	return nil
}

var goroutineHead = regexp.MustCompile(`(?m)^goroutine \d+ .*:$`)

// showGoroutines ends the process so that it shows its goroutines, and counts them.
func (p *program) showGoroutines() (int, error) {
	process := p.current(true)
	process.Signal(syscall.SIGQUIT)
	select {
	case <-process.Done():
	case <-time.After(orderly):
		return 0, fmt.Errorf("%s does not end within %v of SIGQUIT", p.name, orderly)
	}
	n := len(goroutineHead.FindAllString(process.Output(), -1))
	if n == 0 {
		return 0, fmt.Errorf("%s shows no goroutines; it wrote:\n%s", p.name, p.wrote())
	}
	return n, nil
}

func (p *program) stop()   { p.current(false).Signal(syscall.SIGSTOP) }
func (p *program) resume() { p.current(false).Signal(syscall.SIGCONT) }

// alive is the number of the process, 0 if there is none.
func (p *program) alive() int {
	process := p.current(false)
	if process == nil {
		return 0
	}
	select {
	case <-process.Done():
		return 0
	default:
		return process.Pid()
	}
}

// died says how the process ended, if nobody asked it to.
func (p *program) died() string {
	p.mu.Lock()
	process, asked := p.process, p.asked
	p.mu.Unlock()
	if process == nil || asked {
		return ""
	}
	select {
	case <-process.Done():
		return fmt.Sprintf("%s ended by itself (%v); it wrote:\n%s", p.name, process.Wait(), p.wrote())
	default:
		return ""
	}
}

// shownOutput is how much of what a process wrote is shown, in bytes.
const shownOutput = 4 << 10

func (p *program) wrote() string {
	text := p.current(false).Output()
	return text[max(0, len(text)-shownOutput):]
}
