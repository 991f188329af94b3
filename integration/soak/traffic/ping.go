package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingSize is how many bytes follow the number in an echo request.
const pingSize = 100

// pings sends from one raw socket until ctx ends.
func (f *flow) pings(ctx context.Context) {
	network, any := "ip4:icmp", "0.0.0.0"
	if f.addr.Is6() {
		network, any = "ip6:ipv6-icmp", "::"
	}
	c, err := f.agent.net.ListenPacket(network, any)
	if err != nil {
		return
	}
	s := &pingSocket{flow: f, conn: c, id: rand.IntN(1 << 16), began: time.Now(), waiting: make(map[int]time.Time)}
	var receiving sync.WaitGroup
	receiving.Go(s.receive)
	s.send(ctx)
	c.Close()
	receiving.Wait()
}

// A pingSocket is one numbered run of echo requests. All answers that come to the host come to every such socket.
type pingSocket struct {
	flow  *flow
	conn  net.PacketConn
	id    int
	began time.Time

	mu      sync.Mutex        // guards what follows
	waiting map[int]time.Time // when what has no answer yet was sent; at most one for each number
}

func (s *pingSocket) send(ctx context.Context) {
	f := s.flow
	for number := 0; f.next(ctx, f.pace.Ping); number = (number + 1) % (1 << 16) {
		var kind icmp.Type = ipv4.ICMPTypeEcho
		if f.addr.Is6() {
			kind = ipv6.ICMPTypeEchoRequest
		}
		echo := &icmp.Echo{ID: s.id, Seq: number, Data: s.data(number)}
		b, err := (&icmp.Message{Type: kind, Body: echo}).Marshal(nil)
		if err != nil {
			panic(err) // cannot be, of an echo
		}
		s.mu.Lock()
		s.waiting[number] = time.Now()
		s.mu.Unlock()
		f.agent.count.Pings.Add(1)
		s.conn.WriteTo(b, &net.IPAddr{IP: f.addr.AsSlice()}) // an error is a ping lost
	}
}

// data is what follows the number: the time in it makes it this socket's own.
func (s *pingSocket) data(number int) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.began.UnixNano()))
	b = append(b, make([]byte, pingSize-8)...)
	Pattern(s.id<<16|number).Fill(b[8:], 0)
	return b
}

func (s *pingSocket) receive() {
	b := make([]byte, 2048)
	proto, answer := 1, icmp.Type(ipv4.ICMPTypeEchoReply)
	if s.flow.addr.Is6() {
		proto, answer = 58, ipv6.ICMPTypeEchoReply
	}
	for {
		n, from, err := s.conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(context.Background(), 10*time.Millisecond)
			continue
		}
		if from.String() != s.flow.addr.String() {
			continue
		}
		m, err := icmp.ParseMessage(proto, b[:n])
		if err != nil || m.Type != answer {
			continue
		}
		e, ok := m.Body.(*icmp.Echo)
		if !ok || e.ID != s.id || len(e.Data) < 8 || binary.BigEndian.Uint64(e.Data) != uint64(s.began.UnixNano()) {
			continue // another flow's; it judges
		}
		if err := s.take(e); err != nil {
			s.flow.find(wrongOf(err), s.began, err)
		}
	}
}

// take judges an answer.
func (s *pingSocket) take(e *icmp.Echo) error {
	if string(e.Data) != string(s.data(e.Seq)) {
		return fmt.Errorf("%w: the answer to ping %d has other bytes", errWrong, e.Seq)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, waits := s.waiting[e.Seq]
	if !waits {
		return fmt.Errorf("%w: ping %d was answered, or it was never sent", errTwice, e.Seq)
	}
	delete(s.waiting, e.Seq)
	s.flow.agent.count.Answered.Add(1)
	s.flow.succeeded(at)
	return nil
}
