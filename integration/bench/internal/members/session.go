package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// session is a member's session with the relay, on a socket of its own.
type session struct {
	udp    *underlay.UDP
	relay  netip.AddrPort
	sealer *wire.Sealer
	opener *wire.Opener

	scratch  wire.Nonce
	messages []underlay.Message // as last received
}

const patience = 5 * time.Second

// connect makes the session.
func connect(member int, relay netip.AddrPort) (*session, error) {
	udp, err := underlay.ListenUDP(context.Background(), ":0", underlay.Config{})
	if err != nil {
		return nil, err
	}
	s := &session{udp: udp, relay: relay, messages: make([]underlay.Message, 16)}
	local, err := wire.NewLocal(roster.Key(member))
	if err != nil {
		return nil, err
	}
	i, msg, err := local.Initiate(nil, roster.Key(roster.Relay).Public(), wire.PresharedKey{}, 1, time.Now(), nil)
	if err != nil {
		return nil, err
	}
	if err := s.send(msg); err != nil {
		return nil, err
	}
	err = s.await(func(b []byte) (bool, error) {
		if wire.KindOf(b) != wire.KindResponse {
			return false, nil
		}
		keys, err := i.Finish(b)
		if err != nil {
			return false, err
		}
		s.sealer, s.opener = keys.NewSealer(), keys.NewOpener()
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("handshake with the relay: %w", err)
	}
	return s, s.seal(nil) // confirms
}

func (s *session) send(b []byte) error {
	return s.udp.Send([]underlay.Message{{Buf: b, Seg: len(b), Addr: s.relay}})
}

// seal sends inner bytes to the relay.
func (s *session) seal(inner []byte) error {
	b, err := sealed(s.sealer, &s.scratch, inner)
	if err != nil {
		return err
	}
	return s.send(b)
}

func sealed(sealer *wire.Sealer, scratch *wire.Nonce, inner []byte) ([]byte, error) {
	counter, err := sealer.Reserve(1)
	if err != nil {
		return nil, err
	}
	slot := make([]byte, len(inner)+wire.DataOverhead)
	copy(slot[wire.HeaderLen:], inner)
	sealer.Seal(slot, counter, 0, scratch)
	return slot, nil
}

// await gives datagrams to take, one by one, until it has what it wants.
func (s *session) await(take func([]byte) (bool, error)) error {
	timer := time.AfterFunc(patience, func() { s.udp.Close() })
	defer timer.Stop()
	for {
		n, err := s.udp.Receive(s.messages)
		if err != nil {
			return errors.Join(fmt.Errorf("no answer within %v", patience), err)
		}
		for _, m := range s.messages[:n] {
			for b := range datagrams(m) {
				if done, err := take(b); done || err != nil {
					return err
				}
			}
		}
	}
}

// datagrams are those of a message.
func datagrams(m underlay.Message) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for b := m.Buf; len(b) > 0; {
			n := min(m.Seg, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// awaitControl waits for a control message that take wants.
func (s *session) awaitControl(take func(wire.Control) (bool, error)) error {
	return s.await(func(b []byte) (bool, error) {
		if wire.KindOf(b) != wire.KindData {
			return false, nil
		}
		inner, err := s.opener.Open(make([]byte, len(b)), b, &s.scratch)
		if err != nil || wire.InnerOf(inner) != wire.InnerControl {
			return false, err
		}
		m, err := wire.ParseControl(inner)
		if err != nil {
			return false, err
		}
		return take(m)
	})
}
