//go:build linux

package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/lab"
	"github.com/adit-overlay/adit/peer"
)

// ask runs an adit command about p, as root or as who p is not, and returns what it prints. The exit code must be code.
func (p *program) ask(t *testing.T, as *lab.User, code int, args ...string) string {
	t.Helper()
	q := &program{o: p.o, host: p.host, user: as, command: append([]string{p.o.programs + "/adit"}, args...)}
	q.again()
	q.wantExit(t, code)
	return q.Output()
}

// file is the configuration p runs with, and socket its control socket.
func (p *program) file() string   { return p.command[len(p.command)-1] }
func (p *program) socket() string { return filepath.Join(filepath.Dir(p.file()), "own.sock") }

// status asks p for its status.
func (p *program) status(t *testing.T) (st peer.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.ask(t, p.user, 0, "status", "--json", "-c", p.file())), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// TestStatusAndPing asks a TUN peer of root's, a rootless peer and their relay how they are doing, and has them ping each other.
func TestStatusAndPing(t *testing.T) {
	t.Parallel()
	o, relayHost, hosts := segment(t, "a", "b")
	hostA, hostB := hosts[0], hosts[1]
	laptop, server := o.member("laptop"), o.member("server")
	via := o.viaSegment()
	relay := o.relay(relayHost)
	a, b := o.rootless(hostA, laptop, via), o.tun(hostB, server, via)
	a.ready()
	b.ready()

	const byRelay = "path=relay 203.0.113.1:5040"
	for _, c := range []struct {
		from *program
		host string
		says []string
	}{
		{a, "server.adit", []string{"answer from server (" + server.addr("IPv4") + "): seq=3 ", byRelay}},
		{b, "laptop.adit", []string{"answer from laptop (" + laptop.addr("IPv4") + "): seq=3 ", byRelay}},
		{a, server.addr("IPv6"), []string{"answer from server (" + server.addr("IPv6") + "): seq=3 ", byRelay}},
		{b, laptop.addr("IPv6"), []string{"answer from laptop (" + laptop.addr("IPv6") + "): seq=3 ", byRelay}},
		{relay, "laptop", []string{"answer from laptop (" + laptop.addr("IPv4") + "): seq=3 ", "path=203.0.113.2:"}},
	} {
		out := c.from.ask(t, c.from.user, 0, "ping", "-c", c.from.file(), "-n", "3", "--interval", "10ms", "--timeout", "20s", c.host)
		for _, want := range append(c.says, "3 sent, 3 answered, 0% lost") {
			if !strings.Contains(out, want) {
				t.Errorf("ping %s: no %q in\n%s", c.host, want, out)
			}
		}
		t.Logf("\n%s", out)
	}
	if out := b.ask(t, nil, 1, "ping", "-c", b.file(), "-n", "1", "10.9.0.99"); !strings.Contains(out, "no member of the overlay has this address") {
		t.Errorf("an address nobody has:\n%s", out)
	}

	for _, c := range []struct {
		p               *program
		mode, remote    string
		stack, tun, hub bool
	}{
		{p: a, mode: "netstack", remote: "server", stack: true},
		{p: b, mode: "tun", remote: "laptop", tun: true},
		{p: relay, remote: "laptop", hub: true},
	} {
		st := c.p.status(t)
		if string(st.Mode) != c.mode || (st.ModeReason == "") != (c.mode == "") || time.Since(st.Started) > time.Hour || !st.UDPAddress.IsValid() || st.Underlay == nil ||
			(st.Netstack != nil) != c.stack || (st.TUN != nil) != c.tun || (st.Interface != "") != c.tun || (st.Relay != nil) != c.hub {
			t.Errorf("%+v", st)
		}
		found := false
		for _, r := range st.Remotes {
			if r.Name != c.remote {
				continue
			}
			found = true
			if !r.Connected || (r.Via == "") != c.hub || !r.Endpoint.IsValid() || r.RoundTripTime <= 0 && !c.stack || time.Since(r.LastReceived) > time.Minute {
				t.Errorf("%+v", r)
			}
			if !c.hub && r.Traffic.ReceivedPackets == 0 {
				t.Errorf("no traffic with %+v", r)
			}
		}
		if !found {
			t.Errorf("no %s in %+v", c.remote, st.Remotes)
		}
		if r := st.Relay; r != nil && (r.Members != 2 || r.Online != 2 || r.Circuits != 1 || r.Datagrams == 0 || r.Bytes == 0) {
			t.Errorf("%+v", r)
		}
		t.Logf("\n%s", c.p.ask(t, c.p.user, 0, "status", "-c", c.p.file()))
	}

	// Root may ask everybody; others nobody but themselves.
	a.ask(t, nil, 0, "status", "--control", a.socket())
	nobody := lab.Nobody
	if out := b.ask(t, &nobody, 1, "status", "--control", b.socket()); !strings.Contains(out, "its control socket is for its own user and root") {
		t.Errorf("nobody asks root's peer:\n%s", out)
	}

	// The socket of a peer that was killed is replaced by the next.
	b.kill()
	b.ask(t, nil, 1, "status", "--control", b.socket())
	b.again()
	b.ready()
	if st := b.status(t); st.Name != "server" {
		t.Errorf("%+v", st)
	}
}
