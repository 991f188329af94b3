package tun

import (
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/adit-overlay/adit/packet"
)

// readBatch is how many packets one Read returns at most.
const readBatch = 8

// memoryQueue is how many packets a Memory holds in each direction.
const memoryQueue = 1024

// ErrFull is what a Memory's Deliver returns when nobody takes what was delivered.
var ErrFull = errors.New("tun: memory device: queue of delivered packets is full")

// A Memory is a device without a kernel: packets go in by Inject, as the kernel would give
// them, and what was delivered comes out of Delivered. It waits on channels only, so that it
// works in fake time.
//
// It is strict where the kernel is forgiving: memory that it has lent is overwritten
// when the loan ends.
type Memory struct {
	mtu       int
	injected  chan MemoryPacket
	delivered chan MemoryPacket
	closed    chan struct{}
	closeOnce sync.Once
	lent      []MemoryPacket // by the last Read; only the reader touches it
}

// A MemoryPacket is a packet with what is known of it beyond its bytes.
type MemoryPacket struct {
	Pieces [][]byte // as in packet.Packet; a delivered packet has one
	packet.Offload
}

// NewMemory returns a Memory.
func NewMemory(mtu int) *Memory {
	return &Memory{
		mtu:       mtu,
		injected:  make(chan MemoryPacket, memoryQueue),
		delivered: make(chan MemoryPacket, memoryQueue),
		closed:    make(chan struct{}),
	}
}

// Inject makes a packet of a copy of pieces, to be given out by Read. It waits while
// the queue is full, and returns net.ErrClosed after Close.
func (m *Memory) Inject(o packet.Offload, pieces ...[]byte) error {
	p := MemoryPacket{Offload: o}
	for _, b := range pieces {
		p.Pieces = append(p.Pieces, slices.Clone(b))
	}
	if m.isClosed() {
		return net.ErrClosed
	}
	select {
	case m.injected <- p:
		return nil
	case <-m.closed:
		return net.ErrClosed
	}
}

// Delivered gives the packets delivered, in their order. It is never closed.
func (m *Memory) Delivered() <-chan MemoryPacket { return m.delivered }

// Read waits for packets and fills b with up to 8. They are borrowed until the next Read. It
// returns net.ErrClosed after Close. One goroutine at a time may call it.
func (m *Memory) Read(b *packet.Batch) error {
	b.Reset()
	m.endLoan()
	if m.isClosed() {
		return net.ErrClosed
	}
	select {
	case p := <-m.injected:
		m.lend(b, p)
	case <-m.closed:
		return net.ErrClosed
	}
	for len(b.Packets) < readBatch {
		select {
		case p := <-m.injected:
			m.lend(b, p)
		default:
			return nil
		}
	}
	return nil
}

func (m *Memory) lend(b *packet.Batch, p MemoryPacket) {
	m.lent = append(m.lent, p)
	q := b.Add()
	q.Pieces = append(q.Pieces, p.Pieces...)
	q.Offload = p.Offload
}

func (m *Memory) endLoan() {
	for _, p := range m.lent {
		for _, b := range p.Pieces {
			spoil(b)
		}
	}
	clear(m.lent)
	m.lent = m.lent[:0]
}

// Inlet returns a way in for one goroutine.
func (m *Memory) Inlet() packet.Inlet { return &memoryInlet{m: m} }

// MTU is as given to NewMemory.
func (m *Memory) MTU() int { return m.mtu }

// Name returns "memory".
func (m *Memory) Name() string { return "memory" }

// Close ends Read, Inject and Deliver. Packets not yet read are dropped; those delivered can
// still be taken.
func (m *Memory) Close() error {
	m.closeOnce.Do(func() { close(m.closed) })
	return nil
}

func (m *Memory) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

type memoryInlet struct {
	m   *Memory
	buf []byte
}

// Lend returns new memory each time, so that the last loan can be spoiled.
func (in *memoryInlet) Lend(n int) []byte {
	spoil(in.buf)
	in.buf = make([]byte, n)
	return in.buf
}

// Deliver puts the packet into the queue of delivered ones. It judges o as the kernel
// device does.
func (in *memoryInlet) Deliver(n int, o packet.Offload) error {
	if in.m.isClosed() {
		return net.ErrClosed
	}
	if n < 1 || n > len(in.buf) {
		return ErrOffload
	}
	b := in.buf[:n:n]
	if _, err := encode(b, o); err != nil {
		return err
	}
	p := MemoryPacket{Pieces: [][]byte{slices.Clone(b)}, Offload: o}
	spoil(in.buf)
	in.buf = nil
	select {
	case in.m.delivered <- p:
		return nil
	default:
		return ErrFull
	}
}

func spoil(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
