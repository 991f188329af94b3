package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/soak/traffic"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/socks"
	"github.com/adit-overlay/adit/wire"
)

// onLoopback runs a relay and its members in this process, without privileges, on any system. They reach the relay, and desk
// reaches web directly, by lines that can be bad.
func onLoopback(o *options, play func(*ground) error) error {
	l := &loopback{company: company{pace: o.pace()}}
	defer l.close()
	if err := l.open(); err != nil {
		return err
	}
	o.progress("on loopback, in one process: no NATs, no TUN devices, nothing to kill; as root on Linux there are")
	return play(&ground{
		name:    "one process: peers with stacks, one of them behind SOCKS5; UDP on loopback, by a relay and directly",
		company: &l.company,
		kinds:   l.kinds(),
		subjects: func() []subject {
			return []subject{{name: "this process", pid: os.Getpid(), of: l.lodger("web").member}}
		},
		died: func() []string { return nil },
		end:  func() ([]string, map[string]int) { return nil, nil },
	})
}

// loopback is the ground.
type loopback struct {
	company company
	lodgers []*lodger
	relay   *peer.Relay
	config  peer.RelayConfig
	direct  *line // from desk to web

	leaving sync.WaitGroup // agents whose peers are gone
}

// A lodger is a peer in this process, with an agent on it or behind its proxy.
type lodger struct {
	*member
	config  peer.Config
	proxied bool
	line    *line // to the relay

	peer  *peer.Peer // nil: not there
	agent *traffic.Agent
	front *socks.Server
}

func (l *loopback) lodger(name string) *lodger {
	for _, d := range l.lodgers {
		if d.name == name {
			return d
		}
	}
	panic("soak: there is no " + name)
}

func (l *loopback) open() error {
	at, err := freePort()
	if err != nil {
		return err
	}
	key, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		return err
	}
	l.config = peer.RelayConfig{Relay: config.Relay{PrivateKey: key, Listen: at.String(), RekeyAfter: rekeyAfter}}
	for _, name := range []string{"desk", "web", "sensor", "laptop", "guest"} {
		d := &lodger{member: newMember(name, len(l.lodgers)), proxied: name == "laptop"}
		d.serves = !d.proxied
		if d.line, err = newLine(at); err != nil {
			return err
		}
		own, err := wire.GeneratePrivateKey(nil)
		if err != nil {
			return err
		}
		d.config.Peer = config.Peer{
			Name: name, Mode: config.ModeNetstack, PrivateKey: own, Listen: "127.0.0.1:0", RekeyAfter: rekeyAfter,
			Relays: []config.RelayEndpoint{{PublicKey: key.Public(), Endpoint: d.line.addr()}},
		}
		m := config.Member{Name: name, PublicKey: own.Public()}
		for _, a := range d.addrs {
			d.config.Addresses = append(d.config.Addresses, netip.PrefixFrom(a, a.BitLen()-8))
			m.AllowedIPs = append(m.AllowedIPs, netip.PrefixFrom(a, a.BitLen()))
		}
		l.config.Members = append(l.config.Members, m)
		l.lodgers = append(l.lodgers, d)
		l.company.members = append(l.company.members, d.member)
	}
	desk, web := l.lodger("desk"), l.lodger("web")
	at, err = freePort()
	if err != nil {
		return err
	}
	web.config.Listen = at.String()
	if l.direct, err = newLine(at); err != nil {
		return err
	}
	desk.config.Peers = []config.Remote{{
		Name: "web", PublicKey: web.config.PrivateKey.Public(), Endpoint: l.direct.addr(), AllowedIPs: l.config.Members[1].AllowedIPs,
	}}
	if err := l.startRelay(); err != nil {
		return err
	}
	for _, d := range l.lodgers {
		if d.name == "guest" {
			continue
		}
		if err := l.start(d); err != nil {
			return err
		}
	}
	return nil
}

// freePort is a port of loopback that is free, and not of those that systems give to who asks for any: it is still free when
// it is used, and again after what used it has ended. On Linux it is of any address of loopback, which hardly anybody else takes.
func freePort() (at netip.AddrPort, err error) {
	for range 100 {
		ip := [4]byte{127, 0, 0, 1}
		if runtime.GOOS == "linux" {
			ip = [4]byte{127, byte(rand.IntN(256)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))}
		}
		at = netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(10_000+rand.IntN(20_000)))
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err == nil {
			return at, c.Close()
		}
	}
	return netip.AddrPort{}, err
}

func (l *loopback) startRelay() (err error) {
	l.relay, err = peer.StartRelay(context.Background(), l.config)
	return err
}

func (l *loopback) start(d *lodger) (err error) {
	if d.peer, err = peer.Start(context.Background(), d.config); err != nil {
		return err
	}
	c := traffic.Config{Name: d.name, Network: d.peer, Serves: d.serves, Proxied: d.proxied, Keys: traffic.KeysOf(d.peer)}
	if d.proxied {
		front, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.Network = load.Socks{Proxy: front.Addr().String()}
		d.front = &socks.Server{Dial: d.peer.DialContext}
		go d.front.Serve(front)
	}
	if d.agent, err = traffic.NewAgent(c); err != nil {
		return err
	}
	ours, theirs := net.Pipe()
	go d.agent.ServeConn(theirs)
	return l.company.arrive(d.member, traffic.NewController(ours))
}

// stop closes the peer under its traffic.
func (l *loopback) stop(d *lodger) error {
	l.company.depart(d.member)
	if d.front != nil {
		d.front.Close()
		d.front = nil
	}
	err := d.peer.Close()
	d.dead()
	d.peer = nil
	agent := d.agent
	l.leaving.Go(func() { agent.PartAll(traffic.None{}, nil) })
	return err
}

func (l *loopback) close() {
	for _, d := range l.lodgers {
		if d.peer != nil {
			l.stop(d)
		}
	}
	l.leaving.Wait()
	if l.relay != nil {
		l.relay.Close()
	}
	for _, d := range l.lodgers {
		if d.line != nil {
			d.line.close()
		}
	}
	if l.direct != nil {
		l.direct.close()
	}
}

func (l *loopback) kinds() []kind {
	lines := map[string]*line{"from desk to web": l.direct}
	names := []string{"from desk to web"}
	for _, d := range l.lodgers[:4] {
		lines["from "+d.name+" to the relay"] = d.line
		names = append(names, "from "+d.name+" to the relay")
	}
	while := func(name string, q quality) kind {
		return kind{name, 2, usualBound, func(r *rand.Rand) blow {
			whom := names[r.IntN(len(names))]
			return blow{whom,
				func() error { lines[whom].set(q); return nil },
				func() error { lines[whom].set(quality{}); return nil },
			}
		}}
	}
	return []kind{
		{"NAT forgets its flows", 2, usualBound, func(r *rand.Rand) blow {
			whom := names[r.IntN(len(names))]
			return blow{whom, func() error { lines[whom].forget(); return nil }, nil}
		}},
		while("silence on the way", quality{loss: 1}),
		while("bad line", quality{loss: 0.1, delay: 50 * time.Millisecond, overtake: 0.1}),
		{"relay ends and starts again", 1, restartBound, func(*rand.Rand) blow {
			return blow{"relay", func() error { return l.relay.Close() }, l.startRelay}
		}},
		{"peer ends and starts again", 2, usualBound, func(r *rand.Rand) blow {
			d := []*lodger{l.lodger("sensor"), l.lodger("laptop")}[r.IntN(2)]
			return blow{d.name, func() error { return l.stop(d) }, func() error { return l.start(d) }}
		}},
		{"member joins or leaves", 1, restartBound, func(*rand.Rand) blow {
			d := l.lodger("guest")
			return blow{d.name, func() error {
				if d.peer == nil {
					return l.start(d)
				}
				l.company.takeLeave(d.member)
				return l.stop(d)
			}, nil}
		}},
	}
}
