package underlay

import (
	"errors"
	"fmt"
	"net"
)

// maxDatagram is more than the longest UDP datagram, so that a read never cuts one.
const maxDatagram = 1 << 16

// portable moves one datagram a system call by the standard library. It works everywhere.
type portable struct {
	conn  *net.UDPConn
	count *counters
	buf   []byte // lent by receive; only the receiving goroutine touches it
}

func openPortable(conn *net.UDPConn, cfg Config, count *counters) *portable {
	growBuffer(conn.SetReadBuffer, cfg.ReceiveBuffer)
	growBuffer(conn.SetWriteBuffer, cfg.SendBuffer)
	return &portable{conn: conn, count: count, buf: make([]byte, maxDatagram)}
}

// growBuffer asks for less and less until the system agrees: the BSDs refuse what is above their
// limit instead of giving the most they allow.
func growBuffer(set func(int) error, size int) {
	const small = 64 << 10
	for size >= small && set(size) != nil {
		size /= 2
	}
}

func (p *portable) another() source {
	return &portable{conn: p.conn, count: p.count, buf: make([]byte, maxDatagram)}
}

func (p *portable) receive(ms []Message) (int, error) {
	for {
		n, _, flags, from, err := p.conn.ReadMsgUDPAddrPort(p.buf, nil)
		switch {
		case errors.Is(err, net.ErrClosed):
			return 0, err
		case err != nil && isTruncation(err), flags&msgTrunc != 0:
			p.count.truncated.Add(1)
		case err != nil && isPassing(err):
			p.count.receiveErrors.Add(1)
		case err != nil:
			return 0, err
		case n == 0:
			p.count.empty.Add(1)
		case n > MaxMessage:
			p.count.oversize.Add(1)
		default:
			ms[0] = Message{Buf: p.buf[:n:n], Seg: n, Addr: unmapped(from)}
			return 1, nil
		}
	}
}

func (p *portable) send(ms []Message) error {
	var failed error
	for i := range ms {
		if err := p.sendMessage(&ms[i]); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if failed == nil {
				failed = fmt.Errorf("to %s: %w", ms[i].Addr, err)
			}
		}
	}
	return failed
}

func (p *portable) sendMessage(m *Message) error {
	if err := checkAddressed(m); err != nil {
		p.count.sendErrors.Add(1)
		return err
	}
	var failed error
	sent := 0
	for rest := m.Buf; len(rest) > 0; {
		n := min(m.Seg, len(rest))
		_, err := p.conn.WriteToUDPAddrPort(rest[:n], m.Addr)
		switch {
		case err == nil:
			sent++
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			p.count.sendErrors.Add(1)
			if failed == nil {
				failed = err
			}
		}
		rest = rest[n:]
	}
	p.count.datagramsSent.Add(uint64(sent))
	return failed
}

func (p *portable) offloads() (gso, gro bool) { return false, false }
