package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// Flood looks for the greatest rate of datagrams at which hardly one is lost.
type Flood struct {
	Host  string
	Size  int           // bytes of UDP payload, at least 17
	Probe time.Duration // how long each rate is tried
	Steps int           // how often the distance is halved after the doubling
}

// FloodResult is what was found.
type FloodResult struct {
	PerSecond float64 // received a second, at the best rate
	Lost      float64 // share lost at that rate
}

const (
	// floodLoss is the share of datagrams that may be lost, at most.
	floodLoss = 0.001

	floodStart = 8000    // a second
	floodLimit = 4 << 20 // a second; nobody gets there
)

// A datagram begins with what it is. The server counts those of one series; the
// client asks for the count until it is told.
//
//	'e' …                        is sent back as it is
//	'c' | series 8 | padding     is counted
//	'?' | series 8               asks
//	'=' | series 8 | count 8     answers
const (
	udpEcho   = 'e'
	udpCount  = 'c'
	udpAsk    = '?'
	udpAnswer = '='

	countLen = 1 + 8
)

func serveUDP(pc net.PacketConn) {
	enlarge(pc)
	var series, count uint64 // there is one flood at a time
	var answer [countLen + 8]byte
	b := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < countLen {
			continue
		}
		switch b[0] {
		case udpEcho:
			pc.WriteTo(b[:n], from)
		case udpCount:
			if s := binary.BigEndian.Uint64(b[1:]); s != series {
				series, count = s, 0
			}
			count++
		case udpAsk:
			var said uint64
			if binary.BigEndian.Uint64(b[1:]) == series {
				said = count
			}
			copy(answer[:], b[:countLen])
			answer[0] = udpAnswer
			binary.BigEndian.PutUint64(answer[countLen:], said)
			pc.WriteTo(answer[:], from)
		}
	}
}

// enlarge asks for room for bursts, where there is such a thing: losses are to be the tunnel's.
func enlarge(pc any) {
	if c, ok := pc.(interface{ SetReadBuffer(int) error }); ok {
		c.SetReadBuffer(8 << 20)
	}
	if c, ok := pc.(interface{ SetWriteBuffer(int) error }); ok {
		c.SetWriteBuffer(8 << 20)
	}
}

// Run doubles the rate until datagrams are lost, or can be sent no faster, and then halves the distance between the
// best and the worst a few times, or for as long as there is no best.
func (f Flood) Run(ctx context.Context, n Network) (FloodResult, error) {
	c, err := n.DialContext(ctx, "udp", at(f.Host, portUDP))
	if err != nil {
		return FloodResult{}, err
	}
	defer c.Close()
	enlarge(c)
	p := prober{Flood: f, conn: c, series: uint64(time.Now().UnixNano())}
	var best trial
	good, bad := 0.0, 0.0
	for rate := float64(floodStart); bad == 0 && rate < floodLimit; rate *= 2 {
		t, err := p.best(rate)
		if err != nil {
			return FloodResult{}, err
		}
		if !t.clean() {
			bad = rate
			break
		}
		if t.PerSecond > best.PerSecond {
			best = t
		}
		good = rate
		if t.offered < 0.8*rate { // the sender is at its limit, not the tunnel
			return best.FloodResult, nil
		}
	}
	for step := 0; step < f.Steps || good == 0; step++ {
		rate := (good + bad) / 2
		if rate*f.Probe.Seconds() < 1 {
			return FloodResult{}, fmt.Errorf("datagrams are lost even at %.0f a second", bad)
		}
		t, err := p.best(rate)
		if err != nil {
			return FloodResult{}, err
		}
		if !t.clean() {
			bad = rate
			continue
		}
		good = rate
		if t.PerSecond > best.PerSecond {
			best = t
		}
	}
	return best.FloodResult, nil
}

// best tries a rate, and tries it again when the first time did not go well: something else may have had the
// processor for a moment.
func (p *prober) best(rate float64) (trial, error) {
	t, err := p.try(rate)
	if err != nil || t.clean() && t.offered >= 0.8*rate {
		return t, err
	}
	again, err := p.try(rate)
	if err == nil && (t.clean() && !again.clean() || t.clean() == again.clean() && t.PerSecond > again.PerSecond) {
		return t, nil
	}
	return again, err
}

type prober struct {
	Flood
	conn   net.Conn
	series uint64
}

type trial struct {
	FloodResult
	offered float64 // sent a second
}

func (t trial) clean() bool { return t.Lost < floodLoss }

// try sends at a rate and asks what came. Datagrams go out in bursts of half a millisecond's worth: no
// sleep is shorter than that, and a spinning sender would take the time of the processes under test.
func (p *prober) try(rate float64) (trial, error) {
	p.series++
	b := make([]byte, p.Size)
	b[0] = udpCount
	binary.BigEndian.PutUint64(b[1:], p.series)
	begin := time.Now()
	p.conn.SetWriteDeadline(begin.Add(p.Probe + patience))
	sent := 0
	owed := 0.0
	for last := begin; sent == 0 || time.Since(begin) < p.Probe; {
		now := time.Now()
		// A sender that was held up does not make up for it by a burst that nobody asked for.
		owed = min(owed+rate*now.Sub(last).Seconds(), rate/100+1)
		last = now
		for ; owed >= 1; owed-- {
			if _, err := p.conn.Write(b); err != nil && !transient(err) {
				return trial{}, fmt.Errorf("sending %d a second: %w", int(rate), err)
			}
			sent++
		}
		time.Sleep(500 * time.Microsecond)
	}
	elapsed := time.Since(begin)
	got, err := p.ask()
	if err != nil {
		return trial{}, err
	}
	return trial{
		FloodResult: FloodResult{
			PerSecond: float64(got) / elapsed.Seconds(),
			Lost:      1 - float64(min(got, uint64(sent)))/float64(max(sent, 1)),
		},
		offered: float64(sent) / elapsed.Seconds(),
	}, nil
}

// transient says of an error that it concerns the one datagram.
func transient(err error) bool { return !errors.Is(err, net.ErrClosed) && !timedOut(err) }

// ask asks for the count of the series until it no longer grows.
func (p *prober) ask() (uint64, error) {
	question := make([]byte, countLen)
	question[0] = udpAsk
	binary.BigEndian.PutUint64(question[1:], p.series)
	var count uint64
	said := false
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		p.conn.Write(question)
		n, err := p.answer(time.Now().Add(200 * time.Millisecond))
		if timedOut(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if said && n == count {
			return count, nil
		}
		count, said = n, true
	}
	if said {
		return count, nil
	}
	return 0, errors.New("the other end does not say how many datagrams it received")
}

func (p *prober) answer(until time.Time) (uint64, error) {
	b := make([]byte, 2048)
	p.conn.SetReadDeadline(until)
	for {
		n, err := p.conn.Read(b)
		if err != nil {
			return 0, err
		}
		if n == countLen+8 && b[0] == udpAnswer && binary.BigEndian.Uint64(b[1:]) == p.series {
			return binary.BigEndian.Uint64(b[countLen:]), nil
		}
	}
}
