//go:build linux

package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/internal/strain"
	"github.com/adit-overlay/adit/integration/lab"
)

// What is promised: that the overlay is back so soon after the cause is over.
const (
	recoveryBound = 2 * time.Second
	restartBound  = 5 * time.Second // where a relay had to start again
)

// recoveryLimit is how long a TCP connection may take to go on after a blow, and anything on a machine that is busy. TCP has timers of
// its own, which double while there is no way, and look only when they end.
const recoveryLimit = 30 * time.Second

// TestRecovery deals blows to the network and its processes while TCP connections are open across it. They live on, or,
// where the host of one of their ends is gone, new ones can be made at once.
func TestRecovery(t *testing.T) {
	for _, mode := range []string{"rootless", "TUN"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRecovery(t, mode)
			talk := startTalk(t, r.from, r.b.addr("IPv4"))
			for _, blow := range []struct {
				name  string
				bound time.Duration
				deal  func()
			}{
				{"the relay is killed and started again", restartBound, func() { r.relayProgram.kill(); r.relayProgram.again() }},
				{"the NAT of one peer forgets its flows, and takes new ports", recoveryBound, r.natA.FlushNAT},
				{"the NAT of the other forgets its flows", recoveryBound, r.natB.FlushNAT},
				{"one peer's address changes", recoveryBound, func() { r.hostA.ReplaceAddr(r.homeA, "192.168.1.2/24", "192.168.1.77/24") }},
				{"the other peer's address changes", recoveryBound, func() { r.hostB.ReplaceAddr(r.homeB, "192.168.2.2/24", "192.168.2.77/24") }},
				{"both NATs forget and the relay is killed and started again", restartBound, func() {
					r.relayProgram.kill()
					r.natA.FlushNAT()
					r.natB.FlushNAT()
					r.relayProgram.again()
				}},
			} {
				blow.deal()
				r.wantBack(blow.name, blow.bound)
				r.wantLive(talk)
			}
			talk.end(t)

			r.peerB.kill()
			r.peerB.again()
			r.wantBack("the peer that is dialled is killed and started again", recoveryBound)
			r.peerA.kill()
			r.peerA.again()
			r.wantBack("the peer that dials is killed and started again", recoveryBound)
			r.from.download(t, r.b.addr("IPv6"), 10e6)
		})
	}
}

// TestRecoveryFromOutage has something be away for a while, and come back. Keys end after 18 s in these files.
func TestRecoveryFromOutage(t *testing.T) {
	network := []outage{
		{"one peer's interface is down for 10 s", 10 * time.Second,
			func(r *recovery) { r.hostA.Down(r.homeA) }, func(r *recovery) { r.hostA.Up(r.homeA) }},
		{"the other peer has no default route for 4 s", 4 * time.Second,
			func(r *recovery) { r.hostB.SetGateway() }, func(r *recovery) { r.hostB.SetGateway("192.168.2.1") }},
		{"the relay is frozen for 8 s", 8 * time.Second,
			func(r *recovery) { r.relayProgram.Signal(syscall.SIGSTOP) }, func(r *recovery) { r.relayProgram.Signal(syscall.SIGCONT) }},
	}
	const name, lasts = " is frozen for longer than its keys live", 20 * time.Second
	dials := outage{"the peer that dials" + name, lasts,
		func(r *recovery) { r.peerA.Signal(syscall.SIGSTOP) }, func(r *recovery) { r.peerA.Signal(syscall.SIGCONT) }}
	dialled := outage{"the peer that is dialled" + name, lasts,
		func(r *recovery) { r.peerB.Signal(syscall.SIGSTOP) }, func(r *recovery) { r.peerB.Signal(syscall.SIGCONT) }}
	for _, c := range []struct {
		mode, what string
		outages    []outage
	}{
		{"rootless", "network", network},
		{"TUN", "network", network},
		{"rootless", "process", []outage{dials}},
		{"TUN", "process", []outage{dialled}},
	} {
		t.Run(c.mode+"/"+c.what, func(t *testing.T) {
			t.Parallel()
			r := newRecovery(t, c.mode, "rekey_after: 10s")
			talk := startTalk(t, r.from, r.b.addr("IPv4"))
			for _, o := range c.outages {
				o.begin(r)
				r.wantAway(o.lasts)
				o.end(r)
				r.wantBack(o.name, recoveryBound)
				r.wantLive(talk)
			}
			talk.end(t)
		})
	}
}

type outage struct {
	name       string
	lasts      time.Duration
	begin, end func(*recovery)
}

// recovery is two homes with one peer each.
type recovery struct {
	*overlay
	mode                       string
	homeA, homeB               *lab.Switch
	natA, natB                 *lab.NAT
	hostA, hostB               *lab.Host
	relayProgram, peerA, peerB *program
	b                          *member
	from                       access
}

// newRecovery has the files of both peers say lines.
func newRecovery(t *testing.T, mode string, lines ...string) *recovery {
	r := &recovery{overlay: newOverlay(t), mode: mode}
	public := r.Switch("public")
	r.homeA, r.homeB = r.Switch("home a"), r.Switch("home b")
	relay := r.Host("relay", lab.On(public, "203.0.113.1/24"))
	r.natA = r.NAT("nat a", lab.On(public, "203.0.113.10/24"), lab.On(r.homeA, "192.168.1.1/24"), lab.Symmetric())
	r.natB = r.NAT("nat b", lab.On(public, "203.0.113.20/24"), lab.On(r.homeB, "192.168.2.1/24"))
	r.hostA = r.Host("a", lab.On(r.homeA, "192.168.1.2/24"), lab.Gateway("192.168.1.1"))
	r.hostB = r.Host("b", lab.On(r.homeB, "192.168.2.2/24"), lab.Gateway("192.168.2.1"))
	a := r.member("a")
	r.b = r.member("b")
	lines = append(lines, r.via("203.0.113.1:"+relayPort))
	r.relayProgram = r.relay(relay)
	if mode == "TUN" {
		r.peerA, r.peerB, r.from = r.tun(r.hostA, a, lines...), r.tun(r.hostB, r.b, lines...), byRoute(r.hostA)
	} else {
		r.peerA, r.peerB, r.from = r.rootless(r.hostA, a, lines...), r.box(r.hostB, r.b, nil, lines...), bySOCKS(r.hostA)
	}
	r.peerA.ready()
	r.peerB.ready()
	if mode == "TUN" {
		// These outlive the peer: they listen on all addresses, the overlay's among them.
		if err := service.Serve(hostNetwork{r.hostB}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// wantInTime is called when something has come that took so long, and wants that to have been within bound, unless the machine was
// too busy for it. It tells how long it took, to who reads the log of a run that passed, too.
func wantInTime(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	start := time.Now().Add(-took)
	ok, note := inTime(took, bound, machine.Over(start, start.Add(bound)))
	line := fmt.Sprintf("recovery: %s: %.2f s%s", what, took.Seconds(), note)
	t.Log(line)
	fmt.Fprintln(os.Stdout, line)
	if !ok {
		t.Errorf("%s: back after %v, want it within %v", what, took, bound)
	}
}

// inTime judges what took so long on a machine that was so busy, and notes where it does not.
func inTime(took, bound time.Duration, m strain.Reading) (ok bool, note string) {
	switch {
	case took <= bound:
		return true, ""
	case m.Busy():
		return true, fmt.Sprintf(": late, and not judged, since the machine was busy: %v", m)
	default:
		return false, ""
	}
}

func TestLateIsJudgedUnlessTheMachineWasBusy(t *testing.T) {
	quiet, strained, hiccup := strain.Reading{Share: 0.02, Worst: 20 * time.Millisecond}, strain.Reading{Share: 0.3}, strain.Reading{Worst: time.Second}
	for _, c := range []struct {
		name    string
		took    time.Duration
		machine strain.Reading
		ok, not bool // judged
	}{
		{"in time", time.Second, quiet, true, false},
		{"in time on a busy machine", time.Second, strained, true, false},
		{"late", 3 * time.Second, quiet, false, false},
		{"late on a busy machine", 3 * time.Second, strained, true, true},
		{"late on a machine that stood still", 3 * time.Second, hiccup, true, true},
	} {
		ok, note := inTime(c.took, recoveryBound, c.machine)
		if ok != c.ok || strings.Contains(note, "not judged") != c.not {
			t.Errorf("%s: %t%s, want %t", c.name, ok, note, c.ok)
		}
	}
}

// wantAway spends a time in which there can be no conversation.
func (r *recovery) wantAway(d time.Duration) {
	r.t.Helper()
	const last = time.Second
	time.Sleep(d - last) // the outage itself: keys end and sessions are given up in it
	ctx, cancel := context.WithTimeout(r.t.Context(), last)
	defer cancel()
	if r.from.conversation(ctx, r.b.addr("IPv4"), []byte(service.Marker)) == nil {
		r.t.Fatal("there is no outage: the test shows nothing")
	}
	<-ctx.Done() // also where it failed early
}

// wantBack is called when the cause of an outage is over, and wants new connections to come about within bound.
func (r *recovery) wantBack(after string, bound time.Duration) {
	r.t.Helper()
	wantInTime(r.t, r.mode+": "+after, r.from.awaitFirst(r.t, r.b.addr("IPv4"), recoveryLimit), bound)
}

// wantLive wants the open connections to go on.
func (r *recovery) wantLive(k *talk) {
	r.t.Helper()
	r.t.Logf("the open connection answered %v later", k.wantAnswer(r.t).Round(time.Millisecond))
	k.file.wantProgress(r.t, 1e6, recoveryLimit)
}

// A talk is two TCP connections held open: an echo, and a file without end.
type talk struct {
	echo   net.Conn
	number uint64
	file   *follower
	stop   context.CancelFunc
}

func startTalk(t *testing.T, from access, host string) *talk {
	t.Helper()
	from.awaitConversation(t, host, soon)
	echo, err := from(t.Context(), "tcp", net.JoinHostPort(host, service.EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	k := &talk{echo: echo, file: from.follow(ctx, t, host), stop: stop}
	k.wantAnswer(t)
	return k
}

// wantAnswer asks by the open connection, and returns how long the answer took.
func (k *talk) wantAnswer(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	k.number++
	b := binary.BigEndian.AppendUint64(nil, k.number)
	k.echo.SetDeadline(start.Add(recoveryLimit))
	if _, err := k.echo.Write(b); err != nil {
		t.Fatalf("the open connection failed: %v", err)
	}
	if _, err := io.ReadFull(k.echo, b); err != nil {
		t.Fatalf("the open connection had no answer after %v: %v", time.Since(start), err)
	}
	if got := binary.BigEndian.Uint64(b); got != k.number {
		t.Fatalf("the open connection answered %d, want %d", got, k.number)
	}
	return time.Since(start)
}

// end closes both connections, of which nothing may be missing.
func (k *talk) end(t *testing.T) {
	t.Helper()
	k.stop()
	k.echo.Close()
	if err := k.file.fault(); err != nil {
		t.Error(err)
	}
	t.Logf("%d MB came by the connection that was open throughout", k.file.received()/1e6)
}
