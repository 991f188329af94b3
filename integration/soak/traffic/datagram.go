package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A datagram says whose it is, and is a function of that:
//
//	length of the name 1 || name || flow 8 || number 8 || bytes, by the pattern flow^number || CRC-32 of all before 4
//
// How many bytes follows from the number too, so nothing that is cut short passes. The other end sends it back as it is.

const maxDatagram = 4 << 10

// datagram is the number-th of a flow.
func datagram(name string, flow, number uint64) []byte {
	p := Pattern(flow ^ number)
	n := 10 + p.word(1<<40)%1100
	if p.word(1<<41)%64 == 0 {
		n += 2000 // too long for one packet
	}
	b := append([]byte{byte(len(name))}, name...)
	b = binary.BigEndian.AppendUint64(b, flow)
	b = binary.BigEndian.AppendUint64(b, number)
	at := len(b)
	b = append(b, make([]byte, n)...)
	p.Fill(b[at:], 0)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// readDatagram returns what a datagram says of itself, if it is one.
func readDatagram(b []byte) (name string, flow, number uint64, err error) {
	if len(b) < 1+16+4 || len(b) < 1+int(b[0])+16+4 {
		return "", 0, 0, fmt.Errorf("%w: a datagram of %d bytes", errWrong, len(b))
	}
	name = string(b[1 : 1+b[0]])
	flow = binary.BigEndian.Uint64(b[1+b[0]:])
	number = binary.BigEndian.Uint64(b[1+b[0]+8:])
	if string(datagram(name, flow, number)) != string(b) {
		end := len(b) - 4
		right := crc32.ChecksumIEEE(b[:end]) == binary.BigEndian.Uint32(b[end:])
		return name, flow, number, fmt.Errorf("%w: datagram %d of flow %x has %d bytes that were not sent (its checksum is right: %t)", errWrong, number, flow, len(b), right)
	}
	return name, flow, number, nil
}

// A window tells numbers that are new from those that were there. What is older than it counts as neither.
type window struct {
	bits [windowSize / 64]uint64
	next uint64 // all numbers from here on are new
}

const windowSize = 1 << 12 // some minutes of a flow

type age uint8

const (
	isNew age = iota
	isDouble
	isOld
)

func (w *window) note(n uint64) age {
	if n >= w.next+windowSize {
		w.bits, w.next = [windowSize / 64]uint64{}, n
	}
	for ; w.next <= n; w.next++ {
		w.bits[w.next%windowSize/64] &^= 1 << (w.next % 64)
	}
	if w.next-n > windowSize {
		return isOld
	}
	bit := &w.bits[n%windowSize/64]
	if *bit&(1<<(n%64)) != 0 {
		return isDouble
	}
	*bit |= 1 << (n % 64)
	return isNew
}

// datagrams sends from one socket until ctx ends, or the socket is of no use any more.
func (f *flow) datagrams(ctx context.Context) {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := f.agent.net.DialContext(dial, "udp", f.at(DatagramPort))
	if err != nil {
		return
	}
	s := &datagramSocket{flow: f, conn: c, id: rand.Uint64(), began: time.Now()}
	var receiving sync.WaitGroup
	receiving.Go(s.receive)
	s.send(ctx)
	pause(context.Background(), lastEchoes)
	c.Close()
	receiving.Wait()
	for _, number := range s.calmLost() {
		f.agent.count.CalmLost.Add(1)
		f.find(Lost, s.at[number%windowSize], fmt.Errorf("datagram %d, %d bytes", number, len(datagram(f.agent.name, s.id, number))))
	}
}

// lastEchoes is how long what was sent last is waited for.
const lastEchoes = time.Second

// A datagramSocket is one numbered run of datagrams.
type datagramSocket struct {
	flow  *flow
	conn  net.Conn
	id    uint64
	began time.Time

	mu       sync.Mutex // guards what follows
	at       [windowSize]time.Time
	calm     [windowSize]bool // sent, and not yet returned, while nothing was done to the network
	sent     uint64
	returned window
}

func (s *datagramSocket) send(ctx context.Context) {
	count := &s.flow.agent.count
	for s.flow.next(ctx, s.flow.pace.Datagram) {
		b := datagram(s.flow.agent.name, s.id, s.sent)
		quiet := s.flow.agent.calm.Load().quiet()
		s.mu.Lock()
		i := s.sent % windowSize
		if s.calm[i] {
			count.CalmLost.Add(1)
			s.flow.find(Lost, s.at[i], fmt.Errorf("datagram %d", s.sent-windowSize))
		}
		s.at[i], s.calm[i] = time.Now(), quiet
		s.sent++
		s.mu.Unlock()
		count.Datagrams.Add(1)
		if quiet {
			count.Calm.Add(1)
		}
		if _, err := s.conn.Write(b); errors.Is(err, net.ErrClosed) {
			return
		} // any other error is a datagram lost, and counted as one
	}
}

func (s *datagramSocket) receive() {
	b := make([]byte, maxDatagram)
	for {
		n, err := s.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the other end's port is closed, or the way is; that is told once for each datagram
			pause(context.Background(), 10*time.Millisecond)
			continue
		}
		if err := s.take(b[:n]); err != nil {
			s.flow.find(wrongOf(err), s.began, err)
		}
	}
}

// errTwice is the root of errors about what arrived twice.
var errTwice = errors.New("twice")

// wrongOf says what is wrong about a packet.
func wrongOf(err error) Wrong {
	if errors.Is(err, errTwice) {
		return Twice
	}
	return WrongBytes
}

// take judges what came back.
func (s *datagramSocket) take(b []byte) error {
	name, flow, number, err := readDatagram(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != s.flow.agent.name || flow != s.id || number >= s.sent {
		return fmt.Errorf("%w: datagram %d of %s's flow %x was never sent here", errWrong, number, name, flow)
	}
	switch s.returned.note(number) {
	case isDouble:
		return fmt.Errorf("%w: datagram %d came back", errTwice, number)
	case isOld:
		return nil
	}
	i := number % windowSize
	s.calm[i] = false
	s.flow.agent.count.Returned.Add(1)
	s.flow.succeeded(s.at[i])
	return nil
}

// calmLost are those of the last windowSize that did not come back, of those sent while nothing was done to the network.
func (s *datagramSocket) calmLost() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []uint64
	for n := s.sent - min(s.sent, windowSize); n < s.sent; n++ {
		if s.calm[n%windowSize] {
			all = append(all, n)
		}
	}
	return all
}
