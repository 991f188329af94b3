//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/wire"
)

// flooded is what a flood came to.
type flooded struct {
	Sent    int
	Seconds float64
}

// flood sends datagrams of a kind from forged sources, each from another. Each line is where to from now on, empty for
// a pause.
func flood(o options, lines <-chan string) (any, error) {
	next, err := ammunition(o.kind, roster.Key(o.victim).Public())
	if err != nil {
		return nil, err
	}
	if !o.from.Addr().Is4() {
		return nil, errors.New("-from: want an IPv4 prefix")
	}
	r, err := newRaw()
	if err != nil {
		return nil, err
	}
	fmt.Println("ready")
	var target netip.AddrPort
	var p pace
	for {
		if o.count > 0 && r.sent >= o.count {
			fmt.Println("spent")
			o.count = 0
			target = netip.AddrPort{}
		}
		line, told := "", false
		if target.IsValid() {
			select {
			case l, ok := <-lines:
				if !ok {
					return p.result(r.sent), nil
				}
				line, told = l, true
			default:
			}
		} else {
			l, ok := <-lines
			if !ok {
				return p.result(r.sent), nil
			}
			line, told = l, true
		}
		if told {
			p.stop()
			target = netip.AddrPort{}
			if line != "" {
				if target, err = netip.ParseAddrPort(line); err != nil {
					return nil, err
				}
				p.start(o.rate)
			}
			continue
		}
		for range p.due() {
			if err := r.send(forged(o.from), target, next()); err != nil {
				return nil, err
			}
		}
		if err := r.flush(); err != nil {
			return nil, err
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

// strangers is how many different initiations there are in a flood of them. Nobody remembers them by what they
// are, so more would be the same.
const strangers = 256

// ammunition returns what to send next, again and again. What it returns is good until the next call.
func ammunition(kind string, victim wire.PublicKey) (next func() []byte, err error) {
	switch kind {
	case "valid", "invalid":
		all := make([][]byte, strangers)
		for i := range all {
			if all[i], err = initiation(victim); err != nil {
				return nil, err
			}
			if kind == "invalid" {
				all[i][len(all[i])-17] ^= 1 // the last byte of MAC1
			}
		}
		return func() []byte { return all[rand.IntN(len(all))] }, nil
	}
	return nil, fmt.Errorf("-kind %q is not known", kind)
}

// initiation is a handshake begun by somebody unknown: all of it is right, so that it costs the victim the most.
func initiation(victim wire.PublicKey) ([]byte, error) {
	k, err := wire.GeneratePrivateKey(nil)
	if err != nil {
		return nil, err
	}
	local, err := wire.NewLocal(k)
	if err != nil {
		return nil, err
	}
	_, msg, err := local.Initiate(nil, victim, wire.PresharedKey{}, wire.Index(rand.Uint32()), time.Now(), nil)
	return msg, err
}
