//go:build linux

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// A wide network is used: on a segment of 9000 bytes the overlay has packets of 8900, and 60 around them.
func TestJumboFrames(t *testing.T) { testPath(t, 9000, 8960) }

// A path of 1300 bytes in the middle, behind which fragments are dropped, and of which no ICMP tells: only measuring
// helps, and it helps.
func TestBlackHoleForLongDatagrams(t *testing.T) { testPath(t, 1300, 1280) }

// The smallest path that was met in the wild. It carries less than IPv6 wants of a link, and the overlay's IPv6 all the same.
func TestBlackHoleBelowTheLeastOfIPv6(t *testing.T) { testPath(t, 1124, 1024) }

// testPath has traffic on a path of mtu bytes, on which the longest IP packets that adit makes and sees pass have found.
func testPath(t *testing.T, mtu, found int) {
	t.Run("TUN", func(t *testing.T) {
		t.Parallel()
		p := newPathPair(t, mtu, found)
		p.tuns(t)
		p.wantSegments(t)
		p.wantTraffic(t, p.a, p.b, byRoute)
	})
	t.Run("rootless", func(t *testing.T) {
		t.Parallel()
		p := newPathPair(t, mtu, found)
		p.rootlessPeers(t)
		p.wantTraffic(t, p.boxA, p.boxB, bySOCKS)
	})
}

// pathPair is two hosts with routers between them, and a path that carries IP packets of mtu bytes. Unless the hosts' own
// interfaces carry no more, they are of 1500 bytes.
type pathPair struct {
	*overlay
	mtu, found   int // what it carries, and what is found out
	one, two     *lab.Host
	middle       *lab.Host // where the way is watched
	watch        string    // its interface
	addr1, addr2 string
	a, b         *member // in one and two: TUN, or rootless with SOCKS5
	boxA, boxB   *member // in one and two: rootless, with services
}

func newPathPair(t *testing.T, mtu, found int) *pathPair {
	p := &pathPair{overlay: newOverlay(t), mtu: mtu, found: found, addr1: "192.0.2.2", addr2: "198.51.100.2"}
	left, between, right := p.Switch("left"), p.Switch("between"), p.Switch("right")
	p.one = p.Host("one", lab.On(left, p.addr1+"/24"), lab.Gateway("192.0.2.1"))
	near := p.Router("near", lab.On(left, "192.0.2.1/24"), lab.On(between, "203.0.113.1/24"), lab.Route("198.51.100.0/24", "203.0.113.2"))
	far := p.Router("far", lab.On(between, "203.0.113.2/24"), lab.On(right, "198.51.100.1/24"), lab.Route("192.0.2.0/24", "203.0.113.1"))
	p.two = p.Host("two", lab.On(right, p.addr2+"/24"), lab.Gateway("198.51.100.1"))
	near.SetMTU(between, mtu)
	far.SetMTU(between, mtu)
	if mtu > 1500 {
		p.one.SetMTU(left, mtu)
		near.SetMTU(left, mtu)
		p.two.SetMTU(right, mtu)
		far.SetMTU(right, mtu)
	}
	for _, router := range []*lab.Host{near, far} {
		router.Block(lab.Traffic{Protocol: lab.ICMP})
		router.Block(lab.Traffic{Fragments: true})
	}
	p.middle, p.watch = near, near.Interface(between)
	p.a, p.b, p.boxA, p.boxB = p.member("a"), p.member("b"), p.member("box-a"), p.member("box-b")
	return p
}

// measured is what the log of a peer says when it knows a path. One datagram a message, as the capture is to see them.
const (
	measured  = `msg="path MTU"`
	oneByOne  = "udp: {gso: false, gro: false}"
	wordy     = "log: {level: debug}"
	downloads = 4e6
)

// at is where a member listens at a host.
func at(host string, port int) string { return fmt.Sprintf("%s:%d", host, port) }

func (p *pathPair) tuns(t *testing.T) {
	t.Helper()
	one := p.tun(p.one, p.a, `listen: ":5040"`, oneByOne, wordy, knows(entry(p.b, at(p.addr2, 5040))))
	two := p.tun(p.two, p.b, `listen: ":5040"`, oneByOne, wordy, knows(entry(p.a, at(p.addr1, 5040))))
	for host, program := range map[*lab.Host]*program{p.one: one, p.two: two} {
		program.ready()
		program.says(measured)
		if err := service.Serve(hostNetwork{host}); err != nil {
			t.Fatal(err)
		}
	}
}

// rootlessPeers runs in each host a peer with a proxy, and one with services.
func (p *pathPair) rootlessPeers(t *testing.T) {
	t.Helper()
	for _, program := range []*program{
		p.rootless(p.one, p.a, `listen: ":5040"`, oneByOne, wordy, knows(entry(p.boxB, at(p.addr2, 5041)))),
		p.rootless(p.two, p.b, `listen: ":5040"`, oneByOne, wordy, knows(entry(p.boxA, at(p.addr1, 5041)))),
		p.box(p.one, p.boxA, nil, `listen: ":5041"`, oneByOne, wordy, knows(entry(p.b, at(p.addr2, 5040)))),
		p.box(p.two, p.boxB, nil, `listen: ":5041"`, oneByOne, wordy, knows(entry(p.a, at(p.addr1, 5040)))),
	} {
		program.ready() // a path may be measured before its proxy listens
		program.says(measured)
	}
}

// wantTraffic downloads in both directions, and watches the way.
func (p *pathPair) wantTraffic(t *testing.T, inOne, inTwo *member, by func(*lab.Host) access) {
	t.Helper()
	seen := p.middle.Capture(p.watch)
	for _, family := range []string{"IPv4", "IPv6"} {
		by(p.one).download(t, inTwo.addr(family), downloads)
		by(p.two).download(t, inOne.addr(family), downloads)
	}
	fragments, longest := 0, 0
	for _, f := range seen.Stop() {
		const ethernet = 14
		ip := f.Data[ethernet:]
		if len(ip) < 20 || ip[0]>>4 != 4 || ip[9] != 17 {
			continue
		}
		if moreOrOffset := binary.BigEndian.Uint16(ip[6:]) & 0x3fff; moreOrOffset != 0 {
			fragments++
		}
		longest = max(longest, int(binary.BigEndian.Uint16(ip[2:])))
	}
	if fragments > 0 {
		t.Errorf("%d fragments on the way", fragments)
	}
	const room = 30 // what a sender keeps for TCP options that it does not use
	if longest > p.found || longest < p.found-room {
		t.Errorf("the longest IP packet on the way has %d bytes, want nearly %d", longest, p.found)
	}
}

// wantSegments connects in both directions and by both families, and wants each end of each connection to make segments
// that the path carries whole, from the first on.
func (p *pathPair) wantSegments(t *testing.T) {
	t.Helper()
	const ours = 28 + 32 // UDP over IPv4, and what sealing adds
	for family, headers := range map[string]int{"IPv4": 20 + 20, "IPv6": 40 + 20} {
		for _, way := range []struct {
			from, to *lab.Host
			at       *member
		}{{p.one, p.two, p.b}, {p.two, p.one, p.a}} {
			l := way.to.Listen("tcp", net.JoinHostPort(way.at.addr(family), "0"))
			near, err := way.from.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			const timestamps = 12
			want := p.found - ours - headers - timestamps
			for end, c := range map[string]net.Conn{"dials": near, "is dialled": far} {
				if got := segmentSize(t, c); got > want || got < want-timestamps {
					t.Errorf("%s: the host that %s makes segments of %d bytes, want %d", family, end, got, want)
				}
			}
			near.Close()
			far.Close()
			l.Close()
		}
	}
}

// segmentSize is how much the kernel puts into a segment of c.
func segmentSize(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err2 := raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
		err = errors.Join(err, err2)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}
