package netstack

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	xipv4 "golang.org/x/net/ipv4"
	xipv6 "golang.org/x/net/ipv6"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	echoTimeout = 3 * time.Second
	echoHeader  = 8 // type, code, checksum, identifier, sequence number; the same in both versions
)

// takesEcho takes d if it is a whole echo request to an advertised address. It is answered when the host
// has had an answer from there, and otherwise not.
func (f *forwards) takesEcho(d datagram) bool {
	m := d.payload()
	if !d.plain || len(m) < echoHeader {
		return false
	}
	switch {
	case d.dst.Is4() && d.protocol == uint8(header.ICMPv4ProtocolNumber) && header.ICMPv4Type(m[0]) == header.ICMPv4Echo:
		if checksum.Checksum(m, 0) != 0xffff {
			f.s.stats.malformed.Add(1)
			return true
		}
	case d.dst.Is6() && d.protocol == uint8(header.ICMPv6ProtocolNumber) && header.ICMPv6Type(m[0]) == header.ICMPv6EchoRequest:
		sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, addressOf(d.src), addressOf(d.dst), uint16(len(m)))
		if checksum.Checksum(m, sum) != 0xffff {
			f.s.stats.malformed.Add(1)
			return true
		}
	default:
		return false
	}
	if !f.echoes.take(d.src) {
		f.s.stats.echoLimited.Add(1)
		return true
	}
	if !f.begin() {
		f.echoes.release(d.src)
		return true
	}
	message := append([]byte(nil), m...) // d's memory is the inlet's
	go f.echo(d.src, d.dst, message)
	return true
}

func (f *forwards) echo(from, to netip.Addr, message []byte) {
	defer f.running.Done()
	defer f.echoes.release(from)
	ctx, cancel := context.WithTimeout(f.ctx, echoTimeout)
	defer cancel()
	if err := f.askHost(ctx, to, message[echoHeader:]); err != nil {
		f.s.stats.echoesSilent.Add(1)
		f.s.log.Debug("echo into advertised network", "from", from, "to", to, "err", err)
		return
	}
	if f.answerEcho(to, from, message) {
		f.s.stats.echoes.Add(1)
	} else {
		f.s.stats.echoesSilent.Add(1)
	}
}

func (f *forwards) askHost(ctx context.Context, to netip.Addr, payload []byte) error {
	if f.ofHost(to) {
		return errOfHost
	}
	return f.s.cfg.Host.Echo(ctx, to, payload)
}

// answerEcho makes an echo request's message its reply and sends it.
func (f *forwards) answerEcho(from, to netip.Addr, message []byte) bool {
	message[1], message[2], message[3] = 0, 0, 0
	var sum uint16
	transport := header.ICMPv4ProtocolNumber
	if to.Is4() {
		message[0] = byte(header.ICMPv4EchoReply)
	} else {
		message[0] = byte(header.ICMPv6EchoReply)
		transport = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(transport, addressOf(from), addressOf(to), uint16(len(message)))
	}
	sum = ^checksum.Checksum(message, sum)
	message[2], message[3] = byte(sum>>8), byte(sum)

	protocol := protocolOf(to)
	r, terr := f.ip.g.FindRoute(trustedNIC(protocol), addressOf(from), addressOf(to), protocol, false)
	if terr != nil {
		return false
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()) + echoHeader,
		Payload:            buffer.MakeWithData(message[echoHeader:]),
	})
	defer pkt.DecRef()
	copy(pkt.TransportHeader().Push(echoHeader), message)
	pkt.TransportProtocolNumber = transport
	return r.WritePacket(stack.NetworkHeaderParams{Protocol: transport, TTL: r.DefaultTTL()}, pkt) == nil
}

// hostEcho asks the host's network by an unprivileged ICMP socket. The system chooses the identifier, and
// gives this socket the replies to it only.
func hostEcho(ctx context.Context, to netip.Addr, payload []byte) error {
	network, local, protocol := "udp4", "0.0.0.0", 1
	var request, reply icmp.Type = xipv4.ICMPTypeEcho, xipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, local, protocol = "udp6", "::", 58
		request, reply = xipv6.ICMPTypeEchoRequest, xipv6.ICMPTypeEchoReply
	}
	c, err := icmp.ListenPacket(network, local)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	const sequence = 1
	m := icmp.Message{Type: request, Body: &icmp.Echo{Seq: sequence, Data: payload}}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(b, &net.UDPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	answer := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFrom(answer)
		if err != nil {
			if ctx.Err() != nil {
				return os.ErrDeadlineExceeded
			}
			return err
		}
		got, err := icmp.ParseMessage(protocol, answer[:n])
		if err != nil || got.Type != reply {
			continue
		}
		if a, ok := from.(*net.UDPAddr); !ok || a.AddrPort().Addr().Unmap() != to {
			continue
		}
		if e, ok := got.Body.(*icmp.Echo); ok && e.Seq == sequence {
			return nil
		}
	}
}
