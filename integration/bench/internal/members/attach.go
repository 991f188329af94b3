package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// window is how many initiations wait for an answer at a time: too few for the relay to be under load, when
// it would ask for cookies, enough to keep it busy.
const window = 16

// attached is what it took the relay.
type attached struct {
	Handshakes int
	Seconds    float64 // of the relay answering, all else done before and after
}

// attach makes a session for each of the members 1 to count.
func attach(o options) (any, error) {
	udp, err := underlay.ListenUDP(context.Background(), ":0", underlay.Config{})
	if err != nil {
		return nil, err
	}
	defer udp.Close()
	crowd, err := prepare(o.count)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := crowd.handshakes(udp, o.relay); err != nil {
		return nil, err
	}
	result := attached{Handshakes: o.count, Seconds: time.Since(begin).Seconds()}
	return result, crowd.confirm(udp, o.relay)
}

// crowd is many members, by number less one.
type crowd struct {
	begun    []*wire.Initiation
	messages [][]byte
	answers  [][]byte
}

// prepare makes the initiations: that the members' side is dear is not the relay's cost.
func prepare(count int) (*crowd, error) {
	c := &crowd{answers: make([][]byte, count)}
	relay := roster.Key(roster.Relay).Public()
	for i := range count {
		local, err := wire.NewLocal(roster.Key(i + 1))
		if err != nil {
			return nil, err
		}
		initiation, msg, err := local.Initiate(nil, relay, wire.PresharedKey{}, wire.Index(i+1), time.Now(), nil)
		if err != nil {
			return nil, err
		}
		c.begun = append(c.begun, initiation)
		c.messages = append(c.messages, msg)
	}
	return c, nil
}

// handshakes sends all initiations, no more than a window at a time without an answer.
func (c *crowd) handshakes(udp *underlay.UDP, relay netip.AddrPort) error {
	timer := time.AfterFunc(30*time.Second, func() { udp.Close() })
	defer timer.Stop()
	sent, answered := 0, 0
	ms := make([]underlay.Message, window)
	for answered < len(c.messages) {
		for ; sent < len(c.messages) && sent-answered < window; sent++ {
			b := c.messages[sent]
			if err := udp.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: relay}}); err != nil {
				return err
			}
		}
		n, err := udp.Receive(ms)
		if err != nil {
			return fmt.Errorf("after %d of %d handshakes: %w", answered, len(c.messages), err)
		}
		for _, m := range ms[:n] {
			for b := range datagrams(m) {
				if wire.KindOf(b) != wire.KindResponse {
					return fmt.Errorf("the relay answered by %v", wire.KindOf(b))
				}
				index, _ := wire.ReceiverOf(b)
				if i := int(index) - 1; i >= 0 && i < len(c.answers) && c.answers[i] == nil {
					c.answers[i] = append([]byte(nil), b...)
					answered++
				}
			}
		}
	}
	return nil
}

// confirm finishes the handshakes and makes every member online.
func (c *crowd) confirm(udp *underlay.UDP, relay netip.AddrPort) error {
	var scratch wire.Nonce
	for i, initiation := range c.begun {
		keys, err := initiation.Finish(c.answers[i])
		if err != nil {
			return fmt.Errorf("member %d: %w", i+1, err)
		}
		b, err := sealed(keys.NewSealer(), &scratch, nil)
		if err != nil {
			return err
		}
		if err := udp.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: relay}}); err != nil {
			return err
		}
	}
	return nil
}
