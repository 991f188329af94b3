//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
	"github.com/adit-overlay/adit/wire"
)

// Replays by who is on the way.
var replayRows = []row{
	{"replays", "all that two peers send each other, sent again, and from another address", replays},
	{"replays-restart", "the same, to a peer that has just restarted and remembers nothing", replaysAfterRestart},
}

// homeIP is A, behind eve, who is on the way.
const (
	homeIP = "192.0.2.2"
	eveIP  = "203.0.113.8"
)

// oneByOne has each datagram be by itself, as on a wire.
const oneByOne = "udp: {gso: false, gro: false}\n"

// tapped is a field of two members, of whose files more is a part. The way between them leads through eve, a foe that when it is told
// to sends all that has passed again, so many times, at a rate, also from another address.
func (s *siege) tapped(more string, times, rate int) (*field, *foe) {
	f, b := s.newField("b", lab.Route("192.0.2.0/24", eveIP))
	f.hostB = b
	home := f.Switch("home")
	eve := f.Router("eve", lab.On(home, "192.0.2.1/24"), lab.On(f.wild, eveIP+"/24"))
	f.hostA = f.Host("a", lab.On(home, homeIP+"/24"), lab.Gateway("192.0.2.1"))
	x := f.foe(eve, "replay", "-times", fmt.Sprint(times), "-other", foeIP, "-rate", fmt.Sprint(rate))
	f.b = f.tappedB(more)
	f.a = f.member(f.hostA, memberA, tun, more+at(victimIP))
	return f, x
}

// replays has the members send numbered packets both ways, with a change of keys, all of which eve sends again
// while they go on.
func replays(s *siege) {
	const more = oneByOne + "rekey_after: 10s\n" // no configuration allows less
	f, x := s.tapped(more, pick(s, 10, 2), 20000)
	there := f.number(f.hostA, f.hostB, memberB)
	back := f.number(f.hostB, f.hostA, memberA)
	s.sleep(pick(s, 15*time.Second, time.Second)) // and so over a change of keys
	thief := f.hostFoe.Capture("eth0")
	said := logged(f.a) + logged(f.b)
	x.order("now")
	x.spent()
	s.sleep(pick(s, time.Second, 300*time.Millisecond))
	for _, n := range []*numbered{there, back} {
		n.finish()
		s.found(n.twice == 0, n.way+": nothing arrives twice", "%d of %d packets", n.twice, n.arrived)
		s.measured(float64(n.arrived) > 0.95*float64(n.sent), n.way+": all goes on", "%d of %d packets arrive", n.arrived, n.sent)
		s.found(n.arrived > 0 && n.last > n.sent-max(n.sent/5, 10), n.way+": to the end", "%d is the last, of %d", n.last, n.sent)
	}
	stolen := sentTo(thief, wire.KindResponse, wire.KindData)
	s.found(stolen == 0, "no response and no data goes to where it was sent again from", "%d datagrams", stolen)
	n := logged(f.a) + logged(f.b) - said
	s.found(n <= fewLines, fmt.Sprintf("no more than %d lines in the log", fewLines), "%d", n)
	var r struct{ Seen, Sent int }
	x.end(&r)
	s.found(r.Seen > 0 && r.Sent >= 2*r.Seen, "all is sent again", "%d datagrams, as %d", r.Seen, r.Sent)
}

// tappedB runs B, which waits for A.
func (f *field) tappedB(more string) *lab.Process {
	return f.member(f.hostB, memberB, tun, fmt.Sprintf("listen: \":%d\"\n%speers: [{public_key: %q, allowed_ips: [%v/32]}]\n",
		port, more, roster.Key(memberA).Public(), roster.IPv4(memberA)))
}

// sentTo counts what a host that captures was sent of some kinds.
func sentTo(c *lab.Capture, kinds ...wire.Kind) (n int) {
	const headers = 14 + 28 // Ethernet, IPv4 and UDP
	for _, frame := range c.Stop() {
		if b := frame.Data; !frame.Outgoing && len(b) > headers && b[23] == 17 && slices.Contains(kinds, wire.KindOf(b[headers:])) {
			n++
		}
	}
	return n
}

// replaysAfterRestart repeats to B what it has heard before it restarted: handshakes whose times it no longer knows,
// too.
func replaysAfterRestart(s *siege) {
	f, x := s.tapped(oneByOne, pick(s, 20, 3), 5000)
	f.serve(f.hostB)
	n := f.number(f.hostA, f.hostB, memberB)
	s.sleep(pick(s, 3*time.Second, 500*time.Millisecond))
	thief := f.hostFoe.Capture("eth0")
	f.b.Signal(syscall.SIGKILL)
	<-f.b.Done()
	x.order("now")
	begin := time.Now()
	f.b = f.tappedB(oneByOne)
	for {
		c, err := f.s.dial(f.hostA, "tcp", f.service(service.EchoPort))
		if err == nil {
			c.Close()
			break
		}
		if time.Since(begin) > patience {
			s.Fatalf("A does not reach B any more: %v; B wrote:\n%s", err, f.b.Output())
		}
	}
	back := time.Since(begin)
	s.measured(back < 5*time.Second, "A reaches B again within 5s", "%v", back.Round(10*time.Millisecond))
	x.spent()
	n.finish()
	// What A has sent and heard nothing of, it may send again to who has restarted (§19).
	const again = 16
	s.found(n.twice <= again, fmt.Sprintf("nothing arrives twice, but %d packets at most that A itself repeats", again), "%d of %d packets", n.twice, n.arrived)
	stolen := sentTo(thief, wire.KindData)
	s.found(stolen == 0, "no data goes to where it was sent again from", "%d datagrams", stolen)
	var r struct{ Seen, Sent int }
	x.end(&r)
	s.found(r.Seen > 0 && r.Sent >= 2*r.Seen, "all is sent again", "%d datagrams, as %d", r.Seen, r.Sent)
}

// numbered are packets of UDP with numbers, from one member to another.
type numbered struct {
	way  string
	stop chan struct{}
	wg   sync.WaitGroup
	in   net.PacketConn

	sent, arrived, twice, last int // valid when finished
}

// number sends packets from one host to the other, where member is, until finish.
func (f *field) number(from, to *lab.Host, member int) *numbered {
	n := &numbered{way: fmt.Sprintf("from %s to %s", from.Name(), to.Name()), stop: make(chan struct{})}
	n.in = to.ListenPacket("udp4", netip.AddrPortFrom(roster.IPv4(member), 9999).String())
	out, err := f.s.dial(from, "udp4", n.in.LocalAddr().String())
	if err != nil {
		f.s.Fatalf("%v", err)
	}
	n.wg.Go(func() { n.send(out) })
	n.wg.Go(n.receive)
	return n
}

func (n *numbered) send(c net.Conn) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var b [100]byte
	for {
		select {
		case <-n.stop:
			time.AfterFunc(time.Second, func() { n.in.Close() }) // what is under way arrives before
			return
		case <-tick.C:
			n.sent++
			binary.BigEndian.PutUint64(b[:], uint64(n.sent))
			c.Write(b[:])
		}
	}
}

func (n *numbered) receive() {
	seen := make(map[uint64]bool)
	b := make([]byte, 1500)
	for {
		if _, _, err := n.in.ReadFrom(b); err != nil {
			return
		}
		i := binary.BigEndian.Uint64(b)
		n.arrived++
		if seen[i] {
			n.twice++
		}
		seen[i] = true
		n.last = max(n.last, int(i))
	}
}

func (n *numbered) finish() {
	close(n.stop)
	n.wg.Wait()
}
