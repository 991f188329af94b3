//go:build linux

package integration

import (
	"bytes"
	"net"
	"testing"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// homes is a relay in public and two homes, each behind a NAT, with a host that may have a TUN device and
// one where adit is nobody. The underlay is of one family.
type homes struct {
	*overlay
	relayHost, hostA, rootlessA, hostB, rootlessB *lab.Host
	relayAddr                                     string
}

func newHomes(t *testing.T, underlay string) *homes {
	o := newOverlay(t)
	h := &homes{overlay: o}
	public, a, b := o.Switch("public"), o.Switch("home a"), o.Switch("home b")
	switch underlay {
	case "IPv4":
		h.relayAddr = "203.0.113.1:" + relayPort
		h.relayHost = o.Host("relay", lab.On(public, "203.0.113.1/24"))
		o.NAT("nat a", lab.On(public, "203.0.113.10/24"), lab.On(a, "192.168.1.1/24"))
		o.NAT("nat b", lab.On(public, "203.0.113.20/24"), lab.On(b, "192.168.2.1/24"))
		h.hostA = o.Host("a", lab.On(a, "192.168.1.2/24"), lab.Gateway("192.168.1.1"))
		h.rootlessA = o.Host("rootless a", lab.On(a, "192.168.1.3/24"), lab.Gateway("192.168.1.1"))
		h.hostB = o.Host("b", lab.On(b, "192.168.2.2/24"), lab.Gateway("192.168.2.1"))
		h.rootlessB = o.Host("rootless b", lab.On(b, "192.168.2.3/24"), lab.Gateway("192.168.2.1"))
	case "IPv6":
		h.relayAddr = "[2001:db8::1]:" + relayPort
		h.relayHost = o.Host("relay", lab.On(public, "2001:db8::1/64"))
		// These give each flow a port of its own: what one learns of the other is of no use to a third.
		o.NAT("nat a", lab.On(public, "2001:db8::10/64"), lab.On(a, "fd01::1/64"), lab.Symmetric())
		o.NAT("nat b", lab.On(public, "2001:db8::20/64"), lab.On(b, "fd02::1/64"), lab.Symmetric())
		h.hostA = o.Host("a", lab.On(a, "fd01::2/64"), lab.Gateway("fd01::1"))
		h.rootlessA = o.Host("rootless a", lab.On(a, "fd01::3/64"), lab.Gateway("fd01::1"))
		h.hostB = o.Host("b", lab.On(b, "fd02::2/64"), lab.Gateway("fd02::1"))
		h.rootlessB = o.Host("rootless b", lab.On(b, "fd02::3/64"), lab.Gateway("fd02::1"))
	}
	return h
}

// TestBehindTwoNATs has peers of each mode in each home, and sends everything from home a to home b.
func TestBehindTwoNATs(t *testing.T) {
	for _, u := range []struct {
		underlay string
		size     int64
	}{{"IPv4", 100e6}, {"IPv6", 20e6}} {
		t.Run("underlay "+u.underlay, func(t *testing.T) {
			h := newHomes(t, u.underlay)
			desk := h.member("desk-in-home-a")     // TUN
			laptop := h.member("laptop-in-home-a") // rootless, programs use SOCKS5
			sensor := h.member("sensor-in-home-a") // rootless, a program with a peer in it
			server := h.member("server-in-home-b") // TUN
			web := h.member("web-in-home-b")       // rootless, a program with a peer in it

			seen := []*lab.Capture{h.relayHost.Capture("eth0"), h.hostA.Capture("eth0"), h.rootlessB.Capture("eth0")}
			via := h.via(h.relayAddr)
			h.relay(h.relayHost)
			for _, p := range []*program{
				h.tun(h.hostA, desk, via),
				h.rootless(h.rootlessA, laptop, via),
				h.tun(h.hostB, server, via),
				h.box(h.rootlessB, web, nil, via),
			} {
				p.ready()
			}
			h.box(h.rootlessA, sensor, []string{
				"-forward-udp", "127.0.0.1:7001=" + net.JoinHostPort(server.addr("IPv4"), service.EchoPort),
				"-forward-udp", "127.0.0.1:7002=" + net.JoinHostPort(server.addr("IPv6"), service.EchoPort),
				"-forward-udp", "127.0.0.1:7003=" + net.JoinHostPort(web.addr("IPv4"), service.EchoPort),
				"-forward-udp", "127.0.0.1:7004=" + net.JoinHostPort(web.addr("IPv6"), service.EchoPort),
			}, via).ready()
			if err := service.Serve(hostNetwork{h.hostB}); err != nil {
				t.Fatal(err)
			}
			inside := h.hostA.Capture("adit0")

			combinations := []struct {
				name string
				from access
				to   *member
				udp  map[string]string // echoes, by family
				host *lab.Host         // where UDP is sent from
				ping bool              // the host can
			}{
				{"rootless to rootless", bySOCKS(h.rootlessA), web, map[string]string{"IPv4": "127.0.0.1:7003", "IPv6": "127.0.0.1:7004"}, h.rootlessA, false},
				{"rootless to TUN", bySOCKS(h.rootlessA), server, map[string]string{"IPv4": "127.0.0.1:7001", "IPv6": "127.0.0.1:7002"}, h.rootlessA, false},
				{"TUN to rootless", byRoute(h.hostA), web, nil, h.hostA, true},
				{"TUN to TUN", byRoute(h.hostA), server, nil, h.hostA, true},
			}
			overlayFamilies := []string{"IPv4", "IPv6"}

			// First a little of everything, to be looked for in what was captured.
			for _, c := range combinations {
				for _, family := range overlayFamilies {
					t.Run("little/"+c.name+"/"+family, func(t *testing.T) {
						to := c.to.addr(family)
						if c.ping {
							ping(t, c.host, to, 5)
						}
						echo := c.udp[family]
						if echo == "" {
							echo = net.JoinHostPort(to, service.EchoPort)
						}
						echoUDP(t, c.host, echo)
						c.from.download(t, to, 1e6)
					})
				}
			}
			if !inside.Contains([]byte(service.Marker)) {
				t.Error("the marker was not seen on the TUN device, where packets are in the clear: the search finds nothing")
			}
			h.wantNothingSeen(seen)

			for _, c := range combinations {
				for _, family := range overlayFamilies {
					t.Run(c.name+"/"+family, func(t *testing.T) {
						c.from.converse(t, c.to.addr(family), 100)
						c.from.download(t, c.to.addr(family), u.size)
					})
				}
			}
		})
	}
}

// wantNothingSeen looks for what an observer must not see.
func (h *homes) wantNothingSeen(seen []*lab.Capture) {
	secrets := map[string][]byte{"the marker": []byte(service.Marker), "the relay's public key": keyBytes(h.relayKey.Public())}
	for _, m := range h.members {
		secrets["the public key of "+m.name] = keyBytes(m.key.Public())
		secrets["the name "+m.name] = []byte(m.name)
		for _, to := range h.members {
			secrets["a header from "+m.name+" to "+to.name] = append(m.ip4.AsSlice(), to.ip4.AsSlice()...)
			secrets["an IPv6 header from "+m.name+" to "+to.name] = append(m.ip6.AsSlice(), to.ip6.AsSlice()...)
		}
	}
	for _, c := range seen {
		frames := c.Stop()
		total := 0
		for _, f := range frames {
			total += len(f.Data)
		}
		if total < 1e6 {
			h.t.Errorf("a capture has %d bytes in %d frames: the traffic went another way", total, len(frames))
		}
		for what, secret := range secrets {
			for _, f := range frames {
				if bytes.Contains(f.Data, secret) {
					h.t.Errorf("%s can be read on the wire, in a frame of %d bytes", what, len(f.Data))
					break
				}
			}
		}
	}
}

func keyBytes[K ~[32]byte](k K) []byte { b := [32]byte(k); return b[:] }

// hostNetwork is a host of the lab as service.Serve wants it.
type hostNetwork struct{ h *lab.Host }

func (n hostNetwork) Listen(network, address string) (net.Listener, error) {
	return n.h.Listen(network, address), nil
}

func (n hostNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	return n.h.ListenPacket(network, address), nil
}
