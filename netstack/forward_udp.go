package netstack

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxDatagram is the longest UDP datagram there can be.
const maxDatagram = 65535

// handleUDP is asked by the stack about datagrams that belong to no endpoint. False lets it answer that
// the port is unreachable.
func (f *forwards) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	source := addrOf(id.RemoteAddress)
	if !f.flows.take(source) {
		f.s.stats.flowsLimited.Add(1)
		return true
	}
	if !f.begin() {
		f.flows.release(source)
		return true
	}
	if !f.udp.HandlePacket(id, pkt) {
		f.flows.release(source)
		f.running.Done()
		f.s.stats.flowFailed.Add(1)
	}
	return true
}

// forwardUDP opens the near side of a flow, which from then on holds the datagrams that arrive.
func (f *forwards) forwardUDP(r *udp.ForwarderRequest) bool {
	wq := new(waiter.Queue)
	ep, terr := r.CreateEndpoint(wq)
	if terr != nil {
		return false
	}
	id := r.ID()
	near := newUDPConn(f.s, wq, ep, protocolOf(addrOf(id.LocalAddress)))
	go f.serveFlow(id, near)
	return true
}

// serveFlow opens the far side and copies datagrams both ways until there were none for a while.
func (f *forwards) serveFlow(id stack.TransportEndpointID, near *udpConn) {
	defer f.running.Done()
	defer f.flows.release(addrOf(id.RemoteAddress))
	defer near.Close()
	far, err := f.dialHost("udp", localAddr(id))
	if err != nil {
		f.s.stats.flowFailed.Add(1)
		f.s.log.Debug("open flow into advertised network", "from", remoteAddr(id), "to", localAddr(id), "err", err)
		return
	}
	defer far.Close()
	f.s.stats.flows.Add(1)
	f.s.stats.flowsOpen.Add(1)
	defer f.s.stats.flowsOpen.Add(-1)

	exchange(f.ctx, near, far, f.s.cfg.Limits.FlowIdle, &f.s.stats.flowLost)
}

// exchange copies datagrams both ways until there were none for as long as idle, or a side is closed, or
// ctx ends. Then it closes both. lost counts the datagrams that one of them did not take.
func exchange(ctx context.Context, near, far net.Conn, idle time.Duration, lost *atomic.Uint64) {
	end := func() { near.Close(); far.Close() }
	defer onDone(ctx, end)()
	fl := &flow{idle: idle, lost: lost}
	fl.touch()
	var back sync.WaitGroup
	back.Go(func() {
		fl.carry(near, far)
		end()
	})
	fl.carry(far, near)
	end()
	back.Wait()
}

// flow is the state both directions of a UDP flow share.
type flow struct {
	idle time.Duration
	lost *atomic.Uint64
	last atomic.Int64 // when a datagram last passed, either way, since the epoch in ns
}

func (fl *flow) touch() { fl.last.Store(time.Now().UnixNano()) }

// left returns how long the flow may yet live if nothing comes.
func (fl *flow) left() time.Duration {
	return fl.idle - time.Since(time.Unix(0, fl.last.Load()))
}

// carry copies datagrams until the flow has been idle, or a side is closed. An error of one datagram, such as a
// refused port or one too long, is that datagram's loss.
func (fl *flow) carry(dst, src net.Conn) {
	buf := make([]byte, maxDatagram)
	for {
		left := fl.left()
		if left <= 0 {
			return
		}
		if src.SetReadDeadline(time.Now().Add(left)) != nil {
			return
		}
		n, err := src.Read(buf)
		switch {
		case err == nil:
			fl.touch()
			_, err := dst.Write(buf[:n])
			if err != nil {
				fl.lost.Add(1)
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
		case isRefusal(err):
		default:
			return
		}
	}
}
