package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// handleTCP is asked by the stack about segments that belong to no endpoint. False lets it answer RST.
func (f *forwards) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	if !f.beginDial(id) {
		return true
	}
	if !f.tcp.HandlePacket(id, pkt) {
		f.settled(id) // no SYN: nothing was started
		f.over(addrOf(id.RemoteAddress))
		return false
	}
	return true
}

// beginDial counts in a connection and its dial. It does not if the SYN is one sent again while the host is being dialled, if there is
// no room, or if the stack is closing: then nobody answers.
func (f *forwards) beginDial(id stack.TransportEndpointID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, again := f.dialling[id]; again || f.ended || !f.admit(id) {
		return false
	}
	f.dialling[id] = struct{}{}
	f.running.Add(1)
	return true
}

// admit takes a connection's places. If there is no room it counts that; the SYN comes again, and may find some.
func (f *forwards) admit(id stack.TransportEndpointID) bool {
	source := addrOf(id.RemoteAddress)
	if !f.conns.take(source) {
		f.s.stats.connsLimited.Add(1)
		return false
	}
	if f.dials.take(source) {
		if f.targets.take(dialTarget{source, addrOf(id.LocalAddress)}) {
			return true
		}
		f.dials.release(source)
	}
	f.conns.release(source)
	f.s.stats.dialsLimited.Add(1)
	return false
}

// settled ends what beginDial began for a dial. The connection, if it came to one, goes on.
func (f *forwards) settled(id stack.TransportEndpointID) {
	f.mu.Lock()
	delete(f.dialling, id)
	f.mu.Unlock()
	source := addrOf(id.RemoteAddress)
	f.targets.release(dialTarget{source, addrOf(id.LocalAddress)})
	f.dials.release(source)
}

// over ends what beginDial began for a connection.
func (f *forwards) over(source netip.Addr) {
	f.conns.release(source)
	f.running.Done()
}

// forwardTCP serves one connection, on a goroutine the forwarder started.
func (f *forwards) forwardTCP(r *tcp.ForwarderRequest) {
	source := addrOf(r.ID().RemoteAddress)
	near, far := f.joinTCP(r)
	if near == nil {
		f.over(source)
		return
	}
	f.s.stats.forwarded.Add(1)
	startSplice(f.ctx, near, far, func() { f.over(source) })
}

// joinTCP dials the host and then lets the near side in. Without success it returns nil, and near side knows
// what it should.
func (f *forwards) joinTCP(r *tcp.ForwarderRequest) (*tcpConn, net.Conn) {
	id := r.ID()
	defer f.settled(id)
	far, err := f.dialHost("tcp", localAddr(id))
	if f.ctx.Err() != nil { // closing: say so
		if err == nil {
			far.Close()
		}
		r.Complete(true)
		return nil, nil
	}
	if err != nil {
		refused := isRefusal(err)
		if refused {
			f.s.stats.dialRefused.Add(1)
		} else {
			f.s.stats.dialSilent.Add(1)
		}
		f.s.log.Debug("dial into advertised network", "from", remoteAddr(id), "to", localAddr(id), "err", err)
		r.Complete(refused)
		return nil, nil
	}

	// The handshake takes as long as the near side likes; the stack gives it two minutes.
	wq := new(waiter.Queue)
	abort := func() {
		if ep := f.find(id); ep != nil {
			ep.Abort()
		}
	}
	patience := time.AfterFunc(f.s.cfg.Limits.DialTimeout, abort)
	defer patience.Stop()
	ep, terr := r.CreateEndpoint(wq)
	if terr != nil {
		f.s.stats.nearFailed.Add(1)
		r.Complete(false)
		far.Close()
		return nil, nil
	}
	r.Complete(false)
	return newTCPConn(f.s, wq, ep), far
}

func (f *forwards) dialHost(network string, to netip.AddrPort) (net.Conn, error) {
	if f.ofHost(to.Addr()) {
		return nil, errOfHost
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.s.cfg.Limits.DialTimeout)
	defer cancel()
	return f.s.cfg.Host.Dial(ctx, network, to.String())
}

// isRefusal reports whether err says that a connection cannot be had, rather than that nobody answered
// or that this host is short of something.
func isRefusal(err error) bool {
	for _, e := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
		syscall.EACCES, syscall.EPERM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isSystemRefusal(err)
}

// end begins the end of all forwarding: nothing new is started. Dials end with the context, copying too.
func (f *forwards) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
}

// close returns when all forwarding has ended. A handshake can only be aborted once its endpoint is
// registered: hence again until all is over.
func (f *forwards) close() {
	over := make(chan struct{})
	go func() {
		defer close(over)
		f.running.Wait()
	}()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		for _, id := range f.handshakes() {
			if ep := f.find(id); ep != nil {
				ep.Abort()
			}
		}
		select {
		case <-over:
			f.ip.close()
			return
		case <-again.C:
		}
	}
}

// handshakes returns the connections that are not yet open on both sides.
func (f *forwards) handshakes() []stack.TransportEndpointID {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]stack.TransportEndpointID, 0, len(f.dialling))
	for id := range f.dialling {
		ids = append(ids, id)
	}
	return ids
}
