package packet

import (
	"encoding/binary"
	"math/bits"
)

// MaxSYN bounds the packets ClampMSS looks into: IP and TCP headers with all options they can have, and no data.
const MaxSYN = 60 + 60

// Kinds of TCP options (RFC 9293, section 3.2).
const (
	tcpOptionEnd = 0
	tcpOptionNop = 1
	tcpOptionMSS = 2
)

// ClampMSS lowers the MSS option of a TCP SYN or SYN-ACK, in place, so that the packets it allows are at most n bytes long.
// Every other packet it leaves as it is, and one that is malformed too. A checksum that is not partial stays
// as right, or wrong, as it was.
func ClampMSS(b []byte, n int, partial bool) {
	tcp, ok := synHeader(b)
	if !ok {
		return
	}
	headers := IPv6HeaderLen + TCPHeaderLen
	if b[0]>>4 == 4 {
		headers = IPv4HeaderLen + TCPHeaderLen
	}
	if n <= headers {
		return
	}
	most := uint16(min(n-headers, MaxLen))
	for at := TCPHeaderLen; at < len(tcp); {
		switch tcp[at] {
		case tcpOptionEnd:
			return
		case tcpOptionNop:
			at++
			continue
		}
		if at+2 > len(tcp) {
			return
		}
		length := int(tcp[at+1])
		if length < 2 || at+length > len(tcp) {
			return
		}
		if tcp[at] == tcpOptionMSS && length == 4 {
			if mss := binary.BigEndian.Uint16(tcp[at+2:]); mss > most {
				binary.BigEndian.PutUint16(tcp[at+2:], most)
				if !partial {
					adjustChecksum(tcp[tcpChecksum:], mss, most, at%2 != 0)
				}
			}
		}
		at += length
	}
}

// synHeader returns the TCP header, with its options, of a packet that is a SYN or a SYN-ACK.
func synHeader(b []byte) (tcp []byte, ok bool) {
	if len(b) < IPv4HeaderLen+TCPHeaderLen {
		return nil, false
	}
	var ip int
	switch b[0] >> 4 {
	case 4:
		ip = int(b[0]&15) * 4
		if b[9] != ProtoTCP || ip < IPv4HeaderLen || b[6]&0x3f != 0 || b[7] != 0 {
			return nil, false
		}
	case 6:
		if ip = IPv6HeaderLen; b[6] != ProtoTCP {
			return nil, false
		}
	default:
		return nil, false
	}
	if len(b) < ip+TCPHeaderLen || b[ip+13]&(tcpSYN|tcpRST) != tcpSYN {
		return nil, false
	}
	length := int(b[ip+12]>>4) * 4
	if length < TCPHeaderLen || len(b) < ip+length {
		return nil, false
	}
	return b[ip : ip+length], true
}

// adjustChecksum makes the checksum in sum right again after 16 bits it covers have become is from was (RFC 1624, equation 3).
// At an odd offset they lie across two of the words that are summed, each byte in the other half.
func adjustChecksum(sum []byte, was, is uint16, odd bool) {
	if odd {
		was, is = bits.ReverseBytes16(was), bits.ReverseBytes16(is)
	}
	s := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^was) + uint32(is)
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}
