//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/wire"
)

// Kinds of ammunition.
const (
	valid    = "valid"    // initiations by unknown keys, MAC1 right, MAC2 a guess
	invalid  = "invalid"  // the same, MAC1 wrong
	noise    = "noise"    // any bytes
	unknown  = "unknown"  // data for indexes nobody has
	known    = "known"    // data for an index somebody has, the tag wrong
	circuits = "circuits" // circuit data by ids nobody has
	mixed    = "mixed"    // each of all these in turn, but known
)

// ammunition returns what to send next, again and again. What it returns is good until the next call.
func (o options) ammunition() (next func() []byte, err error) {
	b := make([]byte, maxPacket-headerLen)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	switch o.kind {
	case valid, invalid:
		return o.initiations(o.kind == valid)
	case noise:
		return func() []byte {
			binary.BigEndian.PutUint64(b, rand.Uint64())
			return b[:1+rand.IntN(len(b))]
		}, nil
	case unknown, known:
		h := wire.DataHeader{Receiver: wire.Index(o.index)}
		return func() []byte {
			if o.kind == unknown {
				h.Receiver = wire.Index(rand.Uint32())
			}
			h.Counter = uint64(rand.Uint32() >> 8)
			putData(b, h)
			return b[:wire.DataOverhead+rand.IntN(len(b)-wire.DataOverhead)]
		}, nil
	case circuits:
		return func() []byte {
			wire.PutCircuit(b, wire.CircuitID(rand.Uint64()|1))
			putData(b[wire.CircuitOverhead:], wire.DataHeader{Receiver: wire.Index(rand.Uint32())})
			return b[:wire.CircuitOverhead+wire.DataOverhead+rand.IntN(1200)]
		}, nil
	case mixed:
		var all []func() []byte
		for _, kind := range []string{valid, invalid, noise, unknown, circuits} {
			o.kind = kind
			next, err := o.ammunition()
			if err != nil {
				return nil, err
			}
			all = append(all, next)
		}
		i := 0
		return func() []byte {
			i++
			return all[i%len(all)]()
		}, nil
	}
	return nil, fmt.Errorf("-kind %q is not known", o.kind)
}

// putData writes the header of data (§8).
func putData(b []byte, h wire.DataHeader) {
	b[0], b[1], b[2], b[3] = byte(wire.KindData), 0, 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(h.Receiver))
	binary.BigEndian.PutUint64(b[8:], h.Counter)
}

// strangers is how many different initiations there are in a flood of them. Nobody remembers them by what they
// are, so more would be the same.
const strangers = 256

func (o options) initiations(valid bool) (func() []byte, error) {
	all := make([][]byte, strangers)
	for i := range all {
		msg, err := initiation(roster.Key(o.victim).Public())
		if err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint64(msg[len(msg)-16:], rand.Uint64()) // MAC2
		if !valid {
			msg[len(msg)-17] ^= 1 // the last byte of MAC1
		}
		all[i] = msg
	}
	return func() []byte { return all[rand.IntN(len(all))] }, nil
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
