package underlay

import "log/slog"

// Config tunes a UDP carrier or a Stream. The zero value is right for most uses.
type Config struct {
	// Logger is told what changes for good while a carrier runs, such as an offload that had to be
	// switched off. Nil: nobody.
	Logger *slog.Logger

	// DisableGSO and DisableGRO turn off UDP_SEGMENT and UDP_GRO, for a kernel or a network
	// card that gets them wrong in a way that cannot be noticed. Only for UDP.
	DisableGSO bool
	DisableGRO bool

	// Portable asks for one datagram a system call by the standard library, as on systems
	// without batches. Only for UDP.
	Portable bool

	// ReceiveBuffer and SendBuffer are the sizes of the socket's buffers in bytes, 4 MB when zero.
	// They are wishes: the system may grant less. Only for UDP.
	ReceiveBuffer int
	SendBuffer    int

	// Queue is how many bytes a Stream holds for a far end that is slow to read, 256 KB when
	// zero and never less than one message. As many again may be on their way into the
	// connection. Only for Stream.
	Queue int
}

const (
	// A window of a far sender that arrives at once has to fit: with 900 KB a stream over 20 ms had a third of the
	// throughput. The price is latency where the processor is what limits a stream, for what is then in the buffer
	// is what everything else waits behind: 10 ms in place of 5.
	defaultSocketBuffer = 4 << 20
	defaultQueue        = 256 << 10
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ReceiveBuffer <= 0 {
		c.ReceiveBuffer = defaultSocketBuffer
	}
	if c.SendBuffer <= 0 {
		c.SendBuffer = defaultSocketBuffer
	}
	if c.Queue <= 0 {
		c.Queue = defaultQueue
	}
	c.Queue = max(c.Queue, frameHeader+MaxMessage)
	return c
}
