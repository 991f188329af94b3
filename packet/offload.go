package packet

// Checksum says what the transport checksum field of a packet is worth.
type Checksum uint8

const (
	// ChecksumComplete: the field holds a complete checksum that nobody here has verified.
	ChecksumComplete Checksum = iota
	// ChecksumPartial: the field holds the sum of the pseudo-header only (not inverted), and the
	// bytes it would cover are known to be good, because they never left a machine unsealed.
	ChecksumPartial
	// ChecksumVerified: the field holds a complete checksum, found right.
	ChecksumVerified
)

// Offload is what one layer tells the next about a packet beyond its bytes. The zero value
// describes an ordinary single packet.
//
// A super-packet is one IP header and one TCP header before the payload of many segments, as
// a kernel makes for segmentation offload. Its IP length field covers the whole. Handling
// super-packets instead of packets is what makes the data path fast.
type Offload struct {
	Checksum  Checksum
	Transport int // offset of the TCP or UDP header; set for super-packets and for ChecksumPartial
	Header    int // length of all headers, repeated before each segment; set for super-packets
	Segment   int // payload bytes of each segment but the last; 0: not a super-packet
}

// Super reports whether o describes a super-packet.
func (o Offload) Super() bool { return o.Segment > 0 }

// A Packet is one IP packet or super-packet on its way out of a device.
//
// The first piece begins with the IP header and holds all headers of a super-packet, or of a
// packet with a partial checksum, in one run. The pieces are borrowed from the device.
type Packet struct {
	Pieces [][]byte
	Offload
}

// Len returns the length of the packet in bytes.
func (p *Packet) Len() int {
	n := 0
	for _, b := range p.Pieces {
		n += len(b)
	}
	return n
}

// A Batch is what one read of a device returned. It is reused from read to read.
type Batch struct {
	Packets []Packet
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() { b.Packets = b.Packets[:0] }

// Add appends an empty packet and returns it, to be filled by the caller. The piece list of
// an earlier packet in that place is kept to be reused. The result is valid until the next Add.
func (b *Batch) Add() *Packet {
	n := len(b.Packets)
	if n < cap(b.Packets) {
		b.Packets = b.Packets[:n+1]
		p := &b.Packets[n]
		clear(p.Pieces[:cap(p.Pieces)]) // hold no memory of packets gone by
		p.Pieces = p.Pieces[:0]
		p.Offload = Offload{}
		return p
	}
	b.Packets = append(b.Packets, Packet{})
	return &b.Packets[n]
}

// Len returns the length of all packets in bytes.
func (b *Batch) Len() int {
	n := 0
	for i := range b.Packets {
		n += b.Packets[i].Len()
	}
	return n
}

// An Outlet is a way out of a device for one goroutine. The outlets of a device are read in turn, not at
// the same time; each has memory of its own.
type Outlet interface {
	// Read waits for packets and fills b with what there is. The packets are borrowed until the next Read
	// of this outlet. It returns net.ErrClosed after the device was closed; any other error is final as well.
	Read(b *Batch) error
}

// An Inlet is the way into a device for one goroutine. Packets are built in memory the device
// lends, so that what is opened from the wire is opened straight into its place.
type Inlet interface {
	// Lend returns room for a packet of up to n bytes, n <= 65535. It is the device's, and valid
	// until the next call of Lend or Deliver.
	Lend(n int) []byte

	// Deliver hands the first n bytes of what Lend returned last to the device, as one packet or
	// super-packet. An error concerns this packet alone, unless it is net.ErrClosed.
	Deliver(n int, o Offload) error
}
