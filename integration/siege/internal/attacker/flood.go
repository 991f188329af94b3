//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// flooded is what a flood came to.
type flooded struct {
	Sent    int
	Seconds float64
}

// flood sends datagrams of a kind from forged sources, each from another.
func flood(o options, lines <-chan string) (any, error) {
	next, err := o.ammunition()
	if err != nil {
		return nil, err
	}
	if !o.from.Addr().Is4() {
		return nil, errors.New("-from: want an IPv4 prefix")
	}
	return aim(o, lines, func() (netip.AddrPort, []byte) { return forged(o.from), next() })
}

// aim sends what next returns, to where the last line says. An empty line is a pause. When -count datagrams are
// sent it says "spent", and waits for the next line to send as many again.
func aim(o options, lines <-chan string, next func() (from netip.AddrPort, payload []byte)) (flooded, error) {
	r, err := newRaw()
	if err != nil {
		return flooded{}, err
	}
	fmt.Println("ready")
	var target netip.AddrPort
	var p pace
	left := o.count
	for {
		line, told := "", !target.IsValid()
		if told {
			var ok bool
			if line, ok = <-lines; !ok {
				return p.result(r.sent), nil
			}
		} else {
			select {
			case l, ok := <-lines:
				if !ok {
					return p.result(r.sent), nil
				}
				line, told = l, true
			default:
			}
		}
		if told {
			p.stop()
			target, left = netip.AddrPort{}, o.count
			if line != "" {
				if target, err = netip.ParseAddrPort(line); err != nil {
					return flooded{}, err
				}
				p.start(o.rate)
			}
			continue
		}
		n := p.due()
		if o.count > 0 {
			n = min(n, left)
			left -= n
		}
		for range n {
			from, payload := next()
			if err := r.send(from, target, payload); err != nil {
				return flooded{}, err
			}
		}
		if err := r.flush(); err != nil {
			return flooded{}, err
		}
		if o.count > 0 && left == 0 {
			p.stop()
			target = netip.AddrPort{}
			fmt.Println("spent")
		}
	}
}

// forged is any address and port of a prefix.
func forged(from netip.Prefix) netip.AddrPort {
	a := from.Addr().As4()
	host := rand.Uint32() & (1<<(32-from.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+rand.IntN(60000)))
}

// A pace is when how many are due.
type pace struct {
	rate    int
	begun   time.Time // zero while there is a pause
	since   int       // given out since then
	elapsed time.Duration
}

func (p *pace) start(rate int) { p.rate, p.begun, p.since = rate, time.Now(), 0 }

func (p *pace) stop() {
	if !p.begun.IsZero() {
		p.elapsed += time.Since(p.begun)
		p.begun = time.Time{}
	}
}

func (p *pace) result(sent int) flooded {
	p.stop()
	return flooded{sent, p.elapsed.Seconds()}
}

// due waits until something is due and says how many are. Who was kept from sending for long catches up with no more
// than a tenth of a second.
func (p *pace) due() int {
	if p.rate == 0 {
		return batch
	}
	for {
		owed := int(time.Since(p.begun).Seconds()*float64(p.rate)) - p.since
		if most := p.rate / 10; owed > most && most > 0 {
			p.since += owed - most
			owed = most
		}
		if owed > 0 {
			n := min(owed, batch)
			p.since += n
			return n
		}
		time.Sleep(time.Millisecond)
	}
}
