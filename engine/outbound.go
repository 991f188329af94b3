package engine

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// readDevice takes packets from the device, batch by batch, to where they go. With processors to
// spare several goroutines share the work (see turnstile).
func (e *Engine) readDevice() {
	outlets := e.outlets()
	gate := newTurnstile()
	var ended errgroup.Group
	for _, from := range outlets {
		out := newOutbound(e, messagesPerSend)
		out.turn = gate.newTurn()
		ended.Go(func() error { return out.run(from, len(outlets) > 1) })
	}
	if err := ended.Wait(); !errors.Is(err, net.ErrClosed) {
		e.log.Error("device ended", "error", err)
	}
}

// outlets returns a way out of the device for each goroutine that is to read it.
func (e *Engine) outlets() []packet.Outlet {
	several, ok := e.cfg.Device.(interface{ Outlet() packet.Outlet })
	if !ok || e.workers == 1 {
		return []packet.Outlet{e.cfg.Device}
	}
	all := make([]packet.Outlet, e.workers)
	for i := range all {
		all[i] = several.Outlet()
	}
	return all
}

// run returns why the device has ended.
func (o *outbound) run(from packet.Outlet, shared bool) error {
	var batch packet.Batch
	for {
		o.turn.begin()
		batch.Reset()
		if err := from.Read(&batch); err != nil {
			o.turn.end()
			return err
		}
		if shared && batch.Len() >= worthSharing {
			o.turn.share()
		}
		now := time.Now()
		for i := range batch.Packets {
			o.route(&batch.Packets[i], now)
		}
		o.flush()
		o.settle(now)
		o.turn.end()
	}
}

// An outbound seals packets into messages and sends them. It is used by one goroutine.
type outbound struct {
	e    *Engine
	turn *turn // to send; nil: at any time

	// Messages under construction, all for one carrier.
	carrier  underlay.Carrier
	messages []underlay.Message
	buffers  [][]byte
	count    int  // datagrams in the last message
	short    bool // the last datagram of the last message was shorter: no more may follow

	cutter packet.Cutter
	nonce  wire.Nonce

	// The destination of the last packet, and what was sealed for its remote since settle.
	dst            netip.Addr
	remote         *Remote
	via            *Remote // the relay of its path, if that is a circuit
	packets, bytes int
}

// messagesPerSend is how many full messages are gathered before they are sent.
const messagesPerSend = 4

func newOutbound(e *Engine, messages int) *outbound {
	return &outbound{e: e, messages: make([]underlay.Message, 0, messages), buffers: make([][]byte, messages)}
}

// route finds the remote a packet is for, and seals it for that; or has it wait.
func (o *outbound) route(p *packet.Packet, now time.Time) {
	if len(p.Pieces) == 0 {
		o.e.drop(DropOutgoing)
		return
	}
	h, err := packet.ParseHead(p.Pieces[0], p.Len())
	if err != nil {
		o.e.drop(DropOutgoing)
		return
	}
	r := o.remote
	if h.Dst != o.dst || r == nil || o.packets == 0 {
		r = o.e.routes.lookup(h.Dst)
		if r == nil {
			o.wait()
			if r = o.e.routes.lookup(h.Dst); r == nil { // nobody told us while we waited
				o.e.lookups.hold(h.Dst, p, now)
				return
			}
		}
		if r != o.remote {
			o.settle(now)
		}
		o.dst, o.remote = h.Dst, r
	}
	s := r.current.Load()
	way := r.path.Load()
	if s == nil || way == nil {
		o.wait()
		r.hold(p, nil, now)
		return
	}
	switch err := o.seal(s, way, p); {
	case err == nil:
		r.remember(p, now)
	case errors.Is(err, wire.ErrExhausted):
		o.flush() // there may be a new session already
		o.wait()
		r.hold(p, s, now)
	case errors.Is(err, packet.ErrOffload):
		o.e.drop(DropOutgoing)
	default:
		o.e.drop(DropNoPath)
	}
}

var errNoPath = errors.New("engine: the path's relay is not reached")

// seal cuts p into segments and seals each into the messages under construction.
func (o *outbound) seal(s *session, way *path, p *packet.Packet) error {
	carrier, addr, ok := way.under()
	if !ok {
		return errNoPath
	}
	if err := o.cutter.Start(p, true); err != nil {
		return err
	}
	if limit := s.remote.mtu.bound(); o.cutter.Size() > limit {
		s.remote.tooLong(&o.cutter, p, limit, time.Now())
	}
	prefix := way.prefixLen()
	if prefix+o.cutter.Size()+wire.DataOverhead > underlay.MaxMessage {
		return packet.ErrOffload
	}
	n := o.cutter.Segments()
	counter, err := s.sealer.Reserve(n)
	if err != nil {
		return err
	}
	var flags wire.Flags
	if p.Checksum == packet.ChecksumPartial {
		flags = wire.FlagPartialChecksum
	}
	for range n {
		size := o.cutter.Size()
		slot := o.slot(carrier, addr, prefix+size+wire.DataOverhead)
		if prefix != 0 {
			wire.PutCircuit(slot, way.circuit)
			slot = slot[prefix:]
		}
		o.cutter.Next(slot[wire.HeaderLen : wire.HeaderLen+size])
		if size <= packet.MaxSYN {
			s.remote.clampMSS(slot[wire.HeaderLen:wire.HeaderLen+size], flags != 0)
		}
		s.sealer.Seal(slot, counter, flags, &o.nonce)
		counter++
		o.bytes += size
	}
	o.packets += n
	o.via = way.relay
	return nil
}

// slot returns room for a datagram of n bytes, in the last message if it fits there.
func (o *outbound) slot(c underlay.Carrier, addr netip.AddrPort, n int) []byte {
	if c != o.carrier {
		o.flush()
		o.carrier = c
	}
	if last := len(o.messages) - 1; last >= 0 {
		m := &o.messages[last]
		at := len(m.Buf)
		if m.Addr == addr && !o.short && n <= m.Seg && o.count < underlay.MaxSegments && at+n <= underlay.MaxMessage {
			m.Buf = m.Buf[:at+n]
			o.count++
			o.short = n < m.Seg
			return m.Buf[at : at+n : at+n]
		}
		if len(o.messages) == cap(o.messages) {
			o.flush()
		}
	}
	i := len(o.messages)
	if o.buffers[i] == nil {
		o.buffers[i] = make([]byte, underlay.MaxMessage)
	}
	o.messages = append(o.messages, underlay.Message{Buf: o.buffers[i][:n], Seg: n, Addr: addr})
	o.count, o.short = 1, false
	return o.buffers[i][:n:n]
}

// flush sends the messages under construction.
func (o *outbound) flush() {
	if len(o.messages) == 0 {
		return
	}
	o.wait()
	if err := o.carrier.Send(o.messages); err != nil {
		o.e.drop(DropSend)
	}
	o.messages = o.messages[:0]
}

// wait returns when all batches read before are sent or held: what is sent or held next overtakes nothing of them.
func (o *outbound) wait() {
	if o.turn != nil {
		o.turn.wait()
	}
}

// settle books what was sealed for the last remote: once a batch, not once a packet.
func (o *outbound) settle(now time.Time) {
	if o.packets == 0 {
		return
	}
	o.remote.noteSent(now, data)
	if o.via != nil {
		o.via.noteSent(now, data)
	}
	for _, t := range []*trafficCounters{&o.e.traffic, &o.remote.traffic} {
		t.sentPackets.Add(uint64(o.packets))
		t.sentBytes.Add(uint64(o.bytes))
	}
	o.packets, o.bytes = 0, 0
}

// sealAndSend is the way of packets that were held. It returns how many went out, and is called with the
// remote's mu held.
func (r *Remote) sealAndSend(s *session, held []heldPacket, now time.Time) (sent int) {
	way := r.path.Load()
	if len(held) == 0 || way == nil {
		r.engine.dropN(DropHeld, len(held))
		return 0
	}
	o := newOutbound(r.engine, 1)
	o.remote = r
	for _, h := range held {
		p := packet.Packet{Pieces: [][]byte{h.bytes}, Offload: h.Offload}
		if err := o.seal(s, way, &p); err != nil {
			r.engine.drop(DropHeld)
			continue
		}
		sent++
	}
	o.flush()
	o.settle(now)
	return sent
}

// sendInnerBy seals inner, which is no packet, and sends it on a certain path.
func (r *Remote) sendInnerBy(s *session, p path, inner []byte, what traffic, now time.Time) {
	counter, err := s.sealer.Reserve(1)
	if err != nil {
		r.engine.drop(DropControlUnsent)
		return
	}
	slot := make([]byte, len(inner)+wire.DataOverhead)
	copy(slot[wire.HeaderLen:], inner)
	s.sealer.Seal(slot, counter, 0, new(wire.Nonce))
	r.noteSent(now, what)
	r.engine.send(p, slot)
}

// sendControl sends a control message on the path in use.
func (r *Remote) sendControl(s *session, m wire.Control, now time.Time) {
	if p := r.path.Load(); p != nil {
		r.sendControlBy(s, *p, m, now)
	} else {
		r.engine.drop(DropControlUnsent)
	}
}

// sendControlBy sends a control message on a certain path.
func (r *Remote) sendControlBy(s *session, p path, m wire.Control, now time.Time) {
	if !s.confirmed.Load() {
		r.engine.drop(DropControlUnsent)
		return
	}
	inner, err := m.Append(nil)
	if err != nil {
		r.engine.drop(DropControlUnsent)
		r.engine.log.Debug("control message", "remote", r.label(), "error", err)
		return
	}
	what := quiet
	switch m.(type) {
	case wire.Probe, wire.Lookup, wire.OpenCircuit:
		what = question
	}
	r.sendInnerBy(s, p, inner, what, now)
}

// Send sends a control message to the remote, if there is a session with it.
func (r *Remote) Send(m wire.Control) {
	if s := r.current.Load(); s != nil {
		r.sendControl(s, m, time.Now())
	} else {
		r.engine.drop(DropControlUnsent)
	}
}

// send puts one datagram on a path. What cannot be sent is counted.
func (e *Engine) send(p path, datagram []byte) {
	c, addr, ok := p.under()
	if !ok {
		e.drop(DropNoPath)
		return
	}
	if p.relay != nil {
		b := make([]byte, wire.CircuitOverhead, wire.CircuitOverhead+len(datagram))
		wire.PutCircuit(b, p.circuit)
		datagram = append(b, datagram...)
	}
	if err := c.Send([]underlay.Message{{Buf: datagram, Seg: len(datagram), Addr: addr}}); err != nil {
		e.drop(DropSend)
	}
}
