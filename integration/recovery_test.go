//go:build linux

package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// recoveryLimit is how long anything may take to go on after a blow.
const recoveryLimit = 15 * time.Second

// TestRecovery deals blows to the network and its processes while TCP connections are open across it. They live on, or,
// where the host of one of their ends is gone, new ones can be made at once.
func TestRecovery(t *testing.T) {
	for _, mode := range []string{"rootless", "TUN"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRecovery(t, mode)
			talk := r.startTalk(r.b.addr("IPv4"))
			for _, blow := range []struct {
				name string
				deal func()
			}{
				{"the relay is killed and started again", func() { r.relayProgram.kill(); r.relayProgram.again() }},
				{"the NAT of one peer forgets its flows, and takes new ports", r.natA.FlushNAT},
				{"the NAT of the other forgets its flows", r.natB.FlushNAT},
				{"one peer's address changes", func() { r.hostA.ReplaceAddr(r.homeA, "192.168.1.2/24", "192.168.1.77/24") }},
				{"the other peer's address changes", func() { r.hostB.ReplaceAddr(r.homeB, "192.168.2.2/24", "192.168.2.77/24") }},
				{"both NATs forget and the relay is killed and started again", func() {
					r.relayProgram.kill()
					r.natA.FlushNAT()
					r.natB.FlushNAT()
					r.relayProgram.again()
				}},
			} {
				blow.deal()
				r.report(blow.name, talk.wantAnswer(t))
				talk.file.wantProgress(t, 1e6, recoveryLimit)
			}
			talk.end(t)

			from := r.from
			r.peerB.kill()
			r.peerB.again()
			r.report("the peer that is dialled is killed and started again", from.awaitConversation(t, r.b.addr("IPv4"), recoveryLimit))
			r.peerA.kill()
			r.peerA.again()
			r.report("the peer that dials is killed and started again", from.awaitConversation(t, r.b.addr("IPv4"), recoveryLimit))
			from.download(t, r.b.addr("IPv6"), 10e6)
		})
	}
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

func newRecovery(t *testing.T, mode string) *recovery {
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
	via := r.via("203.0.113.1:" + relayPort)
	r.relayProgram = r.relay(relay)
	if mode == "TUN" {
		r.peerA, r.peerB, r.from = r.tun(r.hostA, a, via), r.tun(r.hostB, r.b, via), byRoute(r.hostA)
	} else {
		r.peerA, r.peerB, r.from = r.rootless(r.hostA, a, via), r.box(r.hostB, r.b, nil, via), bySOCKS(r.hostA)
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

// report tells how long something took, to who reads the log of a run that passed, too.
func (r *recovery) report(what string, took time.Duration) {
	line := fmt.Sprintf("recovery: %s: %s: %.2f s", r.mode, what, took.Seconds())
	r.t.Log(line)
	fmt.Fprintln(os.Stdout, line)
}

// A talk is two TCP connections held open: an echo, and a file without end.
type talk struct {
	echo   net.Conn
	number uint64
	file   *follower
	stop   context.CancelFunc
}

func (r *recovery) startTalk(host string) *talk {
	t := r.t
	t.Helper()
	r.from.awaitConversation(t, host, soon)
	echo, err := r.from(t.Context(), "tcp", net.JoinHostPort(host, service.EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	resp, err := r.from.get(ctx, host, "/steady/2000000")
	if err != nil {
		t.Fatal(err)
	}
	k := &talk{echo: echo, file: follow(resp.Body), stop: stop}
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
