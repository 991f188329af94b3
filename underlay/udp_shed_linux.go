package underlay

import (
	"encoding/binary"
	"math"
	"net"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// shed gives the socket a filter of classic BPF, which needs no privilege. The system runs it for each message, before the
// buffer and in the context of whoever brings the message.
func shed(conn *net.UDPConn, sheds []Shed) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	code, err := bpf.Assemble(shedFilter(sheds))
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	var refused error
	err = raw.Control(func(fd uintptr) {
		if len(sheds) > 0 {
			refused = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
		}
		if len(sheds) == 0 || refused != nil { // for want of memory, say: the filter before is not to stay for ever
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // fails if there is none
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", refused)
}

// What the filter of a UDP socket sees begins with the UDP header. The IP header, which is that of the packet and not of the socket's
// family, has a place of its own.
const (
	udpSourceAt  = 0
	udpPayloadAt = 8

	ipHeaderAt   = 1<<32 - 1<<20 // SKF_NET_OFF
	ip4SourceAt  = ipHeaderAt + 12
	ip6SourceAt  = ipHeaderAt + 8
	filterPasses = math.MaxUint32 // bytes
)

// shedFilter is the program for all sheds.
func shedFilter(sheds []Shed) []bpf.Instruction {
	var program []bpf.Instruction
	for _, s := range sheds {
		program = append(program, s.rule()...)
	}
	return append(program, bpf.RetConstant{Val: filterPasses})
}

// rule is the part of the program that ends it for what is dropped; with all else the program goes on behind it.
func (s Shed) rule() []bpf.Instruction {
	source, version, at := s.From.Addr().Unmap().AsSlice(), uint32(6), uint32(ip6SourceAt)
	if len(source) == 4 {
		version, at = 4, ip4SourceAt
	}
	r := []bpf.Instruction{
		bpf.LoadAbsolute{Off: udpSourceAt, Size: 2}, elseNext(uint32(s.From.Port())),
		bpf.LoadAbsolute{Off: ipHeaderAt, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4}, elseNext(version),
	}
	for ; len(source) > 0; source, at = source[4:], at+4 {
		r = append(r, bpf.LoadAbsolute{Off: at, Size: 4}, elseNext(binary.BigEndian.Uint32(source)))
	}
	// A datagram without a payload ends the program by this load. It is dropped, as it would be once it was received.
	r = append(r, bpf.LoadAbsolute{Off: udpPayloadAt, Size: 1}, elseNext(uint32(s.Kind)))
	if s.Keep > 0 {
		kept := uint32(min(s.Keep, 1) * math.MaxUint32)
		r = append(r, bpf.LoadExtension{Num: bpf.ExtRand}, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: kept})
	}
	r = append(r, bpf.RetConstant{Val: 0})
	for i := range r {
		if jump, ok := r[i].(bpf.JumpIf); ok {
			jump.SkipFalse = uint8(len(r) - 1 - i)
			r[i] = jump
		}
	}
	return r
}

// elseNext goes on behind the rule unless v was loaded; how far that is is filled in when its length is known.
func elseNext(v uint32) bpf.JumpIf { return bpf.JumpIf{Cond: bpf.JumpEqual, Val: v} }
