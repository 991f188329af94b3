//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
	"github.com/adit-overlay/adit/wire"
)

// onLab runs everything in processes of its own, on a network of namespaces:
//
//	           relay   depot   web
//	             │       │      │
//	─────────────┴── public ────┴──────┬──── a line that can be bad ──── street ─────
//	  │                                                                    │
//	nat a, symmetric                                                     nat b
//	  │                                                                    │
//	home a: desk, sensor, guest                                   home b: server, laptop
//
// desk, server and depot have TUN devices, sensor, guest and web are programs with a peer in them, laptop is a proxy.
// desk knows where web is by IPv4, and depot by IPv6; all others meet at the relay. The processes of desk and of web are never
// ended: they grow old. Guest comes and goes.
func onLab(o *options, play func(*ground) error) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; -loopback does without")
	}
	programs, err := os.MkdirTemp("", "adit-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs)
	o.progress("building")
	if err := build(programs); err != nil {
		return err
	}
	var failed error
	err = stage.Play(context.Background(), func(s *stage.Stage) {
		l := &labGround{Network: lab.New(s), stage: s, programs: programs, company: company{pace: o.pace()}}
		l.open()
		failed = play(&ground{
			name:     "namespaces: 3 peers with TUN devices, 3 with stacks, one behind SOCKS5; 2 NATs, a relay, direct paths by IPv4 and IPv6",
			company:  &l.company,
			kinds:    l.kinds(),
			subjects: l.subjects,
			died:     l.died,
			end:      l.end,
		})
	})
	return errors.Join(err, failed)
}

// build builds what the lab runs into dir, which everybody may read then.
func build(dir string) error {
	const here = "github.com/adit-overlay/adit/integration/soak"
	ctx := context.Background()
	source, err := stage.GoTool(ctx, "", "list", "-f", "{{.Dir}}", here)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	_, err = stage.GoTool(ctx, source, "build", "-o", dir+"/", "../../cmd/adit", "./internal/member")
	return err
}

// labGround is the ground.
type labGround struct {
	*lab.Network
	stage    *stage.Stage
	programs string
	company  company
	tenants  []*tenant

	relayHost *lab.Host
	relayKey  wire.PrivateKey
	relay     *program

	public     *lab.Switch
	line       *lab.Wire
	natA, natB *house
}

// A house is a host that can exchange its addresses on a switch for others.
type house struct {
	*lab.Host
	nat         *lab.NAT // nil for others
	on          *lab.Switch
	now, spares []string
}

// move exchanges the addresses.
func (h *house) move() {
	for i := range h.now {
		h.ReplaceAddr(h.on, h.now[i], h.spares[i])
	}
	h.now, h.spares = h.spares, h.now
}

const (
	relayPort = "5040"
	relayAt   = "203.0.113.1:" + relayPort
	proxyAt   = "127.0.0.1:1080"
)

// open makes the network, and starts all but the guest.
func (l *labGround) open() {
	public, street := l.Switch("public"), l.Switch("street")
	homeA, homeB := l.Switch("home a"), l.Switch("home b")
	l.public = public
	l.line = l.Wire(public, street, lab.Impairment{})
	l.relayHost = l.Host("relay", lab.On(public, "203.0.113.1/24"))
	nat := l.NAT("nat a", lab.On(public, "203.0.113.10/24"), lab.On(homeA, "192.168.1.1/24"), lab.Symmetric())
	l.natA = &house{Host: nat.Host, nat: nat, on: public, now: []string{"203.0.113.10/24"}, spares: []string{"203.0.113.11/24"}}
	nat = l.NAT("nat b", lab.On(street, "203.0.113.20/24"), lab.On(homeB, "192.168.2.1/24"))
	l.natB = &house{Host: nat.Host, nat: nat, on: street, now: []string{"203.0.113.20/24"}, spares: []string{"203.0.113.21/24"}}
	inside := func(name string, home *lab.Switch, network string, n int) *house {
		now, spare := fmt.Sprintf("%s.%d/24", network, n), fmt.Sprintf("%s.%d/24", network, n+100)
		return &house{Host: l.Host(name, lab.On(home, now), lab.Gateway(network+".1")), on: home, now: []string{now}, spares: []string{spare}}
	}
	outside := func(name string, n int) *house {
		now := []string{fmt.Sprintf("203.0.113.%d/24", n), fmt.Sprintf("2001:db8::%d/64", n)}
		spares := []string{fmt.Sprintf("203.0.113.%d/24", n+100), fmt.Sprintf("2001:db8::%d/64", n+100)}
		return &house{Host: l.Host(name, lab.On(public, now...)), on: public, now: now, spares: spares}
	}
	for _, t := range []*tenant{
		{kind: withTUN, house: inside("desk", homeA, "192.168.1", 2)},
		{kind: withTUN, house: inside("server", homeB, "192.168.2", 2)},
		{kind: withTUN, house: outside("depot", 30)},
		{kind: withStack, house: outside("web", 40)},
		{kind: withStack, house: inside("sensor", homeA, "192.168.1", 3)},
		{kind: withProxy, house: inside("laptop", homeB, "192.168.2", 3)},
		{kind: withStack, house: inside("guest", homeA, "192.168.1", 4)},
	} {
		t.member = newMember(t.house.Name(), len(l.tenants))
		t.serves = t.kind != withProxy
		t.key = l.newKey()
		l.tenants = append(l.tenants, t)
		l.company.members = append(l.company.members, t.member)
	}
	l.relayKey = l.newKey()
	l.relay = l.program("relay", l.relayHost, &lab.Nobody, l.relayKey, l.relayFile(), "adit", "relay")
	l.relay.start()
	l.relay.ready()
	web := l.tenant("web")
	for _, t := range l.tenants {
		var lines []string
		switch t.name {
		case "web":
			lines = append(lines, "listen: \":5040\"")
		case "desk":
			lines = append(lines, web.entry("203.0.113.40:5040"))
		case "depot":
			lines = append(lines, web.entry("[2001:db8::40]:5040"))
		}
		l.prepare(t, lines...)
		if t.name == "guest" {
			continue
		}
		if t.peer != nil {
			t.peer.start()
			t.peer.ready()
		}
		l.must(l.startAgent(t))
	}
}

func (l *labGround) newKey() wire.PrivateKey {
	k, err := wire.GeneratePrivateKey(nil)
	l.must(err)
	return k
}

// must ends the soak if err is not nil.
func (l *labGround) must(err error) {
	if err != nil {
		l.stage.Fatalf("%w", err)
	}
}

func (l *labGround) tenant(name string) *tenant {
	for _, t := range l.tenants {
		if t.name == name {
			return t
		}
	}
	panic("soak: there is no " + name)
}

func (l *labGround) relayFile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "private_key_file: own.key\ncontrol: own.sock\nlisten: \":%s\"\nrekey_after: %v\nmembers:\n", relayPort, rekeyAfter)
	for _, t := range l.tenants {
		fmt.Fprintf(&b, "  - {name: %s, public_key: %q, allowed_ips: %s}\n", t.name, t.key.Public(), t.owns())
	}
	return b.String()
}

// all are the programs of the lab.
func (l *labGround) all() []*program {
	all := []*program{l.relay}
	for _, t := range l.tenants {
		all = append(all, t.agent)
		if t.peer != nil {
			all = append(all, t.peer)
		}
	}
	return all
}

// subjects are the processes that are of adit, or have a peer in them.
func (l *labGround) subjects() []subject {
	var all []subject
	for _, p := range l.all() {
		pid := p.alive()
		if pid == 0 {
			continue
		}
		switch t := p.tenant; {
		case t == nil || t.peer == p:
			all = append(all, subject{name: p.name, pid: pid})
		case t.kind == withStack:
			all = append(all, subject{name: p.name, pid: pid, of: t.member})
		}
	}
	return all
}

func (l *labGround) died() []string {
	var all []string
	for _, p := range l.all() {
		if text := p.died(); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// winding is how long connections that were ended at one end may take until nothing of them is left anywhere, on a busy machine too.
const winding = 3 * time.Second

// end has those that cannot tell of their goroutines show them, and the others end.
func (l *labGround) end() (wrong []string, idle map[string]int) {
	idle = make(map[string]int)
	sleep(context.Background(), winding)
	for _, p := range l.all() {
		if p.alive() == 0 {
			continue
		}
		var err error
		if p.shows {
			idle[p.name], err = p.showGoroutines()
		} else {
			err = p.end()
		}
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong, idle
}
