package tun

import (
	"encoding/binary"

	"github.com/adit-overlay/adit/packet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// TCP flags that belong to the last segment of a super-packet.
const tcpFINandPSH = 0x01 | 0x08

// maxCopiedHeaders limits the memory for the headers of one super-packet's segments. The longest headers
// before the smallest segments that TCP makes of 64 KB remain below it.
const maxCopiedHeaders = 1 << 20

// cutExtended adds to b the segments of the IPv6 super-packet ip, which has extension headers
// before its TCP header at o.Transport, as ordinary packets with complete checksums. Each has headers of its own and
// borrows its payload from ip. Such come from the rare sender that sets IPv6 options on a TCP
// socket, whose connection would not get on at all if they were dropped.
func cutExtended(b *packet.Batch, ip []byte, o packet.Offload) {
	header, payload := ip[:o.Header], ip[o.Header:]
	// Extension headers may change what the pseudo-header says (a routing header does), so the sum the kernel made is
	// kept and only its length taken out.
	pseudo := checksum.Combine(binary.BigEndian.Uint16(header[o.Transport+tcpChecksum:]), ^uint16(len(ip)-o.Transport))
	seq := binary.BigEndian.Uint32(header[o.Transport+4:])
	flags := header[o.Transport+13]
	for first := true; len(payload) > 0; first = false {
		n := min(o.Segment, len(payload))
		h := append([]byte(nil), header...)
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-packet.IPv6HeaderLen+n))
		tcp := h[o.Transport:]
		binary.BigEndian.PutUint32(tcp[4:], seq)
		tcp[13] = flags
		if !first {
			tcp[13] &^= tcpCWR
		}
		if n < len(payload) {
			tcp[13] &^= tcpFINandPSH
		}
		tcp[tcpChecksum], tcp[tcpChecksum+1] = 0, 0
		sum := checksum.Checksum(tcp, checksum.Combine(pseudo, uint16(len(tcp)+n)))
		// The TCP header is a multiple of four bytes long, so the payload begins at an even place.
		sum = checksum.Checksum(payload[:n], sum)
		binary.BigEndian.PutUint16(tcp[tcpChecksum:], ^sum)

		p := b.Add()
		p.Pieces = append(p.Pieces, h, payload[:n])
		seq += uint32(n)
		payload = payload[n:]
	}
}
