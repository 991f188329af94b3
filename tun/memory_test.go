package tun

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
)

func TestMemoryGivesWhatWasInjected(t *testing.T) {
	m := NewMemory(1400)
	super := packet.Offload{Checksum: packet.ChecksumPartial, Transport: 20, Header: 40, Segment: 1360}
	for i := range byte(readBatch + 2) {
		if err := m.Inject(super, []byte{i, 1, 2}, []byte{3}); err != nil {
			t.Fatal(err)
		}
	}
	var b packet.Batch
	next := byte(0)
	for _, want := range []int{readBatch, 2} {
		if err := m.Read(&b); err != nil || len(b.Packets) != want {
			t.Fatalf("%d packets, want %d: %v", len(b.Packets), want, err)
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			if len(p.Pieces) != 2 || !bytes.Equal(p.Pieces[0], []byte{next, 1, 2}) || p.Len() != 4 || p.Offload != super {
				t.Errorf("packet %d: %+v", next, p)
			}
			next++
		}
	}
}

func TestMemorySpoilsWhatItHasLent(t *testing.T) {
	m := NewMemory(1400)
	mine := []byte{1, 2, 3}
	var b packet.Batch
	m.Inject(packet.Offload{}, mine)
	m.Inject(packet.Offload{}, mine)
	m.Read(&b)
	kept := b.Packets[0].Pieces[0]
	m.Inject(packet.Offload{}, mine)
	m.Read(&b)
	if bytes.Equal(kept, mine) {
		t.Error("a packet can be kept beyond the next Read")
	}
	if !bytes.Equal(b.Packets[0].Pieces[0], mine) {
		t.Error("the wrong memory was spoiled")
	}
	in := m.Inlet()
	old := in.Lend(3)
	copy(old, mine)
	in.Lend(3)
	if bytes.Equal(old, mine) {
		t.Error("room can be kept beyond the next Lend")
	}
}

func TestMemoryDelivers(t *testing.T) {
	m := NewMemory(1400)
	in := m.Inlet()
	sent := udpPacket(t)
	verified := packet.Offload{Checksum: packet.ChecksumVerified}
	if err := in.Deliver(copy(in.Lend(2*len(sent)), sent), verified); err != nil {
		t.Fatal(err)
	}
	if p := <-m.Delivered(); len(p.Pieces) != 1 || !bytes.Equal(p.Pieces[0], sent) || p.Offload != verified {
		t.Errorf("delivered %+v", p)
	}
	for name, deliver := range map[string]func() error{
		"more than lent":    func() error { return in.Deliver(len(in.Lend(10))+1, packet.Offload{}) },
		"without a loan":    func() error { in.Deliver(len(in.Lend(10)), packet.Offload{}); return in.Deliver(1, packet.Offload{}) },
		"nothing":           func() error { in.Lend(10); return in.Deliver(0, packet.Offload{}) },
		"offload of others": func() error { in.Lend(10); return in.Deliver(10, packet.Offload{Segment: 5}) },
	} {
		if err := deliver(); err != ErrOffload {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := NewMemory(1400)
	in := m.Inlet()
	for range memoryQueue {
		in.Lend(1)
		if err := in.Deliver(1, packet.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	in.Lend(1)
	if err := in.Deliver(1, packet.Offload{}); err != ErrFull {
		t.Errorf("one too many: %v", err)
	}
}

func TestMemoryCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1400)
		ended := make(chan error, 2)
		go func() {
			var b packet.Batch
			ended <- m.Read(&b)
		}()
		synctest.Wait()
		m.Inject(packet.Offload{}, []byte{1})
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for range memoryQueue {
			m.Inject(packet.Offload{}, []byte{1})
		}
		go func() { ended <- m.Inject(packet.Offload{}, []byte{1}) }()
		synctest.Wait() // in a full queue
		select {
		case err := <-ended:
			t.Fatalf("Inject did not wait: %v", err)
		case <-time.After(time.Hour):
		}
		m.Close()
		m.Close()
		var b packet.Batch
		in := m.Inlet()
		in.Lend(1)
		for name, err := range map[string]error{
			"waiting Inject": <-ended,
			"Inject":         m.Inject(packet.Offload{}, []byte{1}),
			"Read":           m.Read(&b),
			"Deliver":        in.Deliver(1, packet.Offload{}),
		} {
			if err != net.ErrClosed {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestMemoryReadIsEndedByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1400)
		ended := make(chan error)
		go func() {
			var b packet.Batch
			ended <- m.Read(&b)
		}()
		synctest.Wait()
		m.Close()
		if err := <-ended; err != net.ErrClosed {
			t.Error(err)
		}
	})
}
