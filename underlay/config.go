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

	// ReceiveBuffer and SendBuffer are the sizes of the socket's buffers in bytes, 900 KB and 4 MB
	// when zero. They are wishes: the system may grant less. Only for UDP.
	ReceiveBuffer int
	SendBuffer    int

	// Queue is how many bytes a Stream holds for a far end that is slow to read, 256 KB when
	// zero and never less than one message. As many again may be on their way into the
	// connection. Only for Stream.
	Queue int
}

const (
	// What waits in the receive buffer while a stream runs at full speed is what everything else has to wait behind:
	// with 4 MB some 5 ms. This much still holds what comes while another process has the
	// processor.
	defaultReceiveBuffer = 900 << 10
	defaultSendBuffer    = 4 << 20
	defaultQueue         = 256 << 10
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ReceiveBuffer <= 0 {
		c.ReceiveBuffer = defaultReceiveBuffer
	}
	if c.SendBuffer <= 0 {
		c.SendBuffer = defaultSendBuffer
	}
	if c.Queue <= 0 {
		c.Queue = defaultQueue
	}
	c.Queue = max(c.Queue, frameHeader+MaxMessage)
	return c
}
