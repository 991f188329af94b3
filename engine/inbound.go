package engine

import (
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// readCarrier takes datagrams from a carrier, batch by batch, to the device. There is one such
// goroutine for each carrier; with processors to spare it has others help it (see turnstile).
func (e *Engine) readCarrier(c underlay.Carrier) {
	receivers := e.receivers(c)
	gate := newTurnstile()
	var ended errgroup.Group
	for _, from := range receivers {
		in := newInbound(e, c, gate.newTurn(), len(receivers) > 1)
		ended.Go(func() error {
			err := in.run(from)
			c.Close() // and so the others end as well
			return err
		})
	}
	e.carrierGone(c, ended.Wait())
}

// receivers returns a receiver for each goroutine that is to serve c.
func (e *Engine) receivers(c underlay.Carrier) []underlay.Receiver {
	several, ok := c.(interface{ Receiver() underlay.Receiver })
	if !ok || e.workers == 1 {
		return []underlay.Receiver{c}
	}
	all := make([]underlay.Receiver, e.workers)
	for i := range all {
		all[i] = several.Receiver()
	}
	return all
}

// run returns why the carrier has ended.
func (in *inbound) run(from underlay.Receiver) error {
	messages := make([]underlay.Message, underlay.MaxBatch)
	for {
		in.turn.begin()
		n, err := from.Receive(messages)
		if err != nil {
			in.turn.end()
			return err
		}
		if in.shelf != nil && bytesIn(messages[:n]) >= worthSharing {
			in.turn.share()
		}
		in.now = time.Now()
		for i := range messages[:n] {
			in.message(&messages[i])
		}
		in.out.Flush()
		if in.shelf != nil {
			in.shelf.clear()
		}
		in.turn.end()
		in.replies.flush(in.carrier) // whoever has the next turn need not wait for what strangers are told
	}
}

func bytesIn(ms []underlay.Message) (n int) {
	for i := range ms {
		n += len(ms[i].Buf)
	}
	return n
}

// An inbound opens what arrives by one carrier. It is used by one goroutine.
type inbound struct {
	e       *Engine
	carrier underlay.Carrier
	turn    *turn
	now     time.Time
	out     *packet.Coalescer
	shelf   *shelf // before the device; nil if no other goroutine receives from the carrier
	nonce   wire.Nonce
	replies replies
	notices *rate.Limiter // sent
	heed    *rate.Limiter // notices received, which anybody can send

	// The circuit of the last datagram that came by one.
	circuit circuitEnd
	id      wire.CircuitID

	// A run of data of one session by one path.
	session        *session
	from           path
	packets, bytes int
	kind           traffic
}

const (
	// noticesPerSecond bounds what we tell strangers, and remotes that missed our restart.
	noticesPerSecond = 200

	// heedPerSecond bounds what strangers, and remotes that did not miss theirs, can tell us.
	heedPerSecond = 1000
)

func newInbound(e *Engine, c underlay.Carrier, t *turn, shared bool) *inbound {
	in := &inbound{
		e: e, carrier: c, turn: t, replies: newReplies(e),
		notices: rate.NewLimiter(noticesPerSecond, noticesPerSecond),
		heed:    rate.NewLimiter(heedPerSecond, heedPerSecond),
	}
	errs := func(error) { e.drop(DropDevice) }
	var inlet packet.Inlet = new(nowhere)
	switch {
	case e.cfg.Device == nil:
	case shared:
		in.shelf = newShelf(e.cfg.Device, t, errs)
		inlet = in.shelf
	default:
		inlet = e.cfg.Device.Inlet()
	}
	in.out = packet.NewCoalescer(inlet, errs)
	return in
}

// nowhere is the inlet of an engine without a device.
type nowhere struct{ buf []byte }

func (n *nowhere) Lend(size int) []byte {
	if cap(n.buf) < size {
		n.buf = make([]byte, size)
	}
	return n.buf[:size]
}

func (*nowhere) Deliver(int, packet.Offload) error { return net.ErrClosed }

// message takes a message apart.
func (in *inbound) message(m *underlay.Message) {
	direct := path{carrier: in.carrier, addr: m.Addr}
	for b := m.Buf; len(b) > 0; {
		n := min(m.Seg, len(b))
		in.datagram(b[:n:n], direct, len(b)-n)
		b = b[n:]
	}
	in.endRun()
}

// datagram takes one datagram, of any kind, to where it belongs. more is how many bytes follow it.
func (in *inbound) datagram(b []byte, from path, more int) {
	if b[0] == byte(wire.KindCircuit) {
		id, inner, ok := wire.ParseCircuit(b)
		if !ok {
			in.e.drop(DropMalformed)
			return
		}
		end, ok := in.circuitOf(id, from)
		if !ok {
			in.e.drop(DropCircuit)
			return
		}
		from, b = path{relay: end.relay, circuit: id}, inner
	}
	if h, ok := wire.ParseData(b); ok {
		in.data(b, h, from, more)
		return
	}
	switch kind := wire.KindOf(b); kind {
	case wire.KindInitiation:
		in.initiation(b, from)
	case wire.KindResponse, wire.KindCookieReply:
		if index, _ := wire.ReceiverOf(b); in.e.indexes.initiation(index) == nil {
			in.e.drop(DropUnexpected) // and takes nobody's place in the queue
			return
		}
		in.e.post(letter{msg: b, from: from}, DropHandshakeQueue)
	case wire.KindNotice, wire.KindCircuitNotice:
		if !in.heed.AllowN(in.now, 1) {
			in.e.drop(DropUnexpected)
			return
		}
		in.e.post(letter{msg: b, from: from}, DropHandshakeQueue)
	default:
		in.e.drop(DropMalformed)
	}
}

// circuitOf returns whose circuit that is. One that we do not know yet is taken for a circuit of the relay
// it came from: that relay's word of it may still be on the way.
func (in *inbound) circuitOf(id wire.CircuitID, from path) (circuitEnd, bool) {
	if in.id == id && in.circuit.remote != nil {
		return in.circuit, true
	}
	end, ok := in.e.circuits.lookup(id)
	if !ok {
		end.relay = in.e.relayAt(from)
		return end, end.relay != nil
	}
	in.id, in.circuit = id, end
	return end, true
}

// data opens transport data (§8) and delivers what was in it.
func (in *inbound) data(b []byte, h wire.DataHeader, from path, more int) {
	s := in.session
	if s == nil || s.local != h.Receiver || in.from != from {
		in.endRun()
		s = in.e.indexes.session(h.Receiver)
		if s == nil {
			in.e.drop(DropUnknownIndex)
			if in.notices.AllowN(in.now, 1) {
				in.replies.add(wire.AppendNotice(in.replies.room(), h.Receiver), from)
			}
			return
		}
		in.session, in.from = s, from
	}
	if s.retired.Load() || in.now.Sub(s.established) >= in.e.rejectAfter() {
		in.e.drop(DropExpired)
		return
	}
	n := len(b) - wire.DataOverhead
	if n == 0 {
		var none [1]byte
		if newest, ok := in.open(s, none[:0], b, h); ok {
			in.note(s, from, newest, quiet)
		}
		return
	}
	if n > packet.MaxLen {
		in.e.drop(DropMalformed)
		return
	}
	dst := in.out.Room(n, more)
	newest, ok := in.open(s, dst, b, h)
	if !ok {
		in.out.Discard()
		return
	}
	if v := dst[0] >> 4; v != 4 && v != 6 {
		in.note(s, from, newest, quiet)
		if h.Flags != 0 { // no flag means anything to a control message (§8)
			in.out.Discard()
			in.e.drop(DropControl)
			return
		}
		if msg, ok := wire.TrimControl(dst); ok {
			in.e.postControl(letter{msg: msg, from: from, remote: s.remote, sealed: s}, in.now)
		} else {
			in.e.drop(DropControl)
		}
		in.out.Discard()
		return
	}
	in.note(s, from, newest, data)
	in.deliver(s, n, h.Flags&wire.FlagPartialChecksum != 0)
}

// open opens b into dst and lets pass what is authentic and new: the tag first, then the window (§9).
// newest says that nothing later was received before.
func (in *inbound) open(s *session, dst, b []byte, h wire.DataHeader) (newest, ok bool) {
	if _, err := s.opener.Open(dst, b, &in.nonce); err != nil {
		in.e.drop(DropTag)
		return false, false
	}
	if newest, ok = s.accept(h.Counter); !ok {
		in.e.drop(DropReplay)
	}
	return newest, ok
}

// note draws the conclusions from an authentic packet: its session is confirmed, its remote is where
// it came from, and alive.
func (in *inbound) note(s *session, from path, newest bool, what traffic) {
	r := s.remote
	if !s.heard.Load() {
		s.heard.Store(true)
		if !s.confirmed.Load() {
			r.confirm(s, from, in.now)
		}
	}
	if newest {
		if p := r.path.Load(); p == nil || *p != from {
			r.roam(s, from, in.now)
		}
	}
	in.packets++
	in.kind = max(in.kind, what)
}

// deliver hands the packet that Room was asked for to the device, if it is the remote's to send.
func (in *inbound) deliver(s *session, n int, partial bool) {
	if in.out.Join(partial) { // and has the addresses of the one before
		in.bytes += n
		return
	}
	pkt := in.out.Settle()
	h, err := packet.Parse(pkt)
	if err != nil {
		in.out.Discard()
		in.e.drop(DropInner)
		return
	}
	if in.e.routes.lookup(h.Src) != s.remote {
		in.out.Discard()
		in.e.drop(DropSource)
		return
	}
	if n <= packet.MaxSYN {
		s.remote.clampMSS(pkt, partial)
	}
	if err := in.out.Begin(&h, partial); err != nil {
		in.e.drop(DropInner)
		return
	}
	in.bytes += n
}

// endRun books what the run brought: once a run, not once a packet.
func (in *inbound) endRun() {
	s := in.session
	if s == nil {
		return
	}
	in.session = nil
	if in.packets == 0 {
		return
	}
	s.remote.noteReceived(in.now, in.kind)
	if in.from.relay != nil {
		in.from.relay.noteReceived(in.now, data)
	}
	if in.kind == data {
		for _, t := range []*trafficCounters{&in.e.traffic, &s.remote.traffic} {
			t.receivedPackets.Add(uint64(in.packets))
			t.receivedBytes.Add(uint64(in.bytes))
		}
	}
	in.packets, in.bytes, in.kind = 0, 0, quiet
}
