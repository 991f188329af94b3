package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// source opens a circuit and sends circuit data in messages as full as they can be, without a pause or at the rate asked for.
func source(o options) (any, error) {
	s, err := connect(o.member, o.relay)
	if err != nil {
		return nil, err
	}
	defer s.udp.Close()
	id, err := s.open(roster.Key(o.to).Public())
	if err != nil {
		return nil, err
	}
	messages := blast(s, id, o.size)
	batch := len(messages) * len(messages[0].Buf)
	pace := rate.NewLimiter(rate.Inf, 0)
	if o.rate > 0 {
		pace = rate.NewLimiter(rate.Limit(o.rate), max(batch, o.rate/100)) // sleeps are of milliseconds
	}
	sent := 0
	for end := time.Now().Add(o.duration); time.Now().Before(end); {
		if err := pace.WaitN(context.Background(), batch); err != nil {
			return nil, err
		}
		if err := s.udp.Send(messages); err != nil {
			return nil, err
		}
		for _, m := range messages {
			sent += len(m.Buf) / m.Seg
		}
	}
	return struct{ Sent int }{sent}, nil
}

// open opens a circuit. The other end may have come just now: the relay may not know it yet.
func (s *session) open(to wire.PublicKey) (id wire.CircuitID, err error) {
	for question := wire.QuestionID(1); question < 20; question++ {
		inner, err := wire.OpenCircuit{ID: question, Remote: to}.Append(nil)
		if err != nil {
			return 0, err
		}
		if err := s.seal(inner); err != nil {
			return 0, err
		}
		var status wire.CircuitStatus
		err = s.awaitControl(func(m wire.Control) (bool, error) {
			r, ok := m.(wire.OpenCircuitReply)
			id, status = r.Circuit, r.Status
			return ok && r.ID == question, nil
		})
		if err != nil {
			return 0, fmt.Errorf("opening a circuit: %w", err)
		}
		if status == wire.CircuitOK {
			return id, nil
		}
		if status != wire.CircuitOffline {
			return 0, fmt.Errorf("opening a circuit: %v", status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, fmt.Errorf("opening a circuit: the other end stays offline")
}

// perSend is how many messages go to the system at once.
const perSend = 4

// blast makes messages of circuit data that look like packets of size bytes, sealed. Nobody opens them.
func blast(s *session, id wire.CircuitID, size int) []underlay.Message {
	one := make([]byte, wire.CircuitOverhead+wire.DataOverhead+size)
	wire.PutCircuit(one, id)
	one[wire.CircuitOverhead] = byte(wire.KindData)
	per := min(underlay.MaxSegments, underlay.MaxMessage/len(one))
	var buf []byte
	for range per {
		buf = append(buf, one...)
	}
	messages := make([]underlay.Message, perSend)
	for i := range messages {
		messages[i] = underlay.Message{Buf: buf, Seg: len(one), Addr: s.relay}
	}
	return messages
}

// passed is what a sink has received.
type passed struct {
	Datagrams uint64
	Bytes     uint64 // of overlay packets
	Seconds   float64
}

// sink counts the circuit data that arrives from the first on, for nine tenths of the time the source sends, which began a
// little earlier.
func sink(o options) (any, error) {
	s, err := connect(o.member, o.relay)
	if err != nil {
		return nil, err
	}
	defer s.udp.Close()
	fmt.Println("online")
	enough := time.AfterFunc(2*patience+o.duration, func() { s.udp.Close() })
	whole := wire.CircuitOverhead + wire.DataOverhead + o.size
	var p passed
	var begin time.Time
	for {
		n, err := s.udp.Receive(s.messages)
		if err != nil {
			if begin.IsZero() {
				return nil, fmt.Errorf("nothing comes: %w", err)
			}
			p.Bytes = p.Datagrams * uint64(o.size)
			p.Seconds = time.Since(begin).Seconds()
			return p, nil
		}
		for _, m := range s.messages[:n] {
			if m.Seg != whole {
				continue
			}
			if begin.IsZero() {
				begin = time.Now()
				enough.Reset(o.duration * 9 / 10)
			}
			p.Datagrams += uint64(len(m.Buf) / m.Seg)
		}
	}
}
