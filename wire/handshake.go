package wire

import (
	"crypto/ecdh"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/flynn/noise"
)

// The handshake is Noise_IKpsk2_25519_AESGCM_SHA256 (§4, §5).
var prologue = []byte("adit/1")

// A Local is our own end of every handshake: the key pair and what follows from it. It may be used
// by many goroutines.
type Local struct {
	static  noise.DHKey
	ecdh    *ecdh.PrivateKey // the same
	public  PublicKey
	mac1Key [32]byte
	statics *statics
}

// NewLocal returns the Local of a private key; the zero key is an error.
func NewLocal(k PrivateKey) (*Local, error) {
	if k.IsZero() {
		return nil, errZeroPrivate
	}
	pub := k.Public()
	return &Local{
		static:  noise.DHKey{Private: k[:], Public: pub[:]},
		ecdh:    k.ecdh(),
		public:  pub,
		mac1Key: mac1Key(pub),
		statics: newStatics(),
	}, nil
}

// Public returns our public key.
func (l *Local) Public() PublicKey { return l.public }

func (l *Local) config(random io.Reader) noise.Config {
	dh := &x25519{local: l}
	return noise.Config{
		CipherSuite:           dh.suite(),
		Random:                source(random),
		Pattern:               noise.HandshakeIK,
		Prologue:              prologue,
		StaticKeypair:         l.static,
		PresharedKeyPlacement: 2,
	}
}

// An Initiation is a handshake begun and not yet answered. One goroutine at a time uses it.
type Initiation struct {
	local  *Local
	state  *noise.HandshakeState // nil when finished or wiped
	sender Index
}

// Initiate begins a handshake with remote and returns the initiation to send, MAC2 still zero (see Cookie.Stamp).
// sender is the index by which the response will find its way back. psk zero means none. now becomes
// the timestamp, which must be later than that of any earlier initiation under this private key. certificate is
// at most MaxCertificate bytes. It reads 32 bytes of random. The error is ErrKey for a remote
// that cannot be, or about random or the certificate.
func (l *Local) Initiate(random io.Reader, remote PublicKey, psk PresharedKey, sender Index, now time.Time, certificate []byte) (*Initiation, []byte, error) {
	if err := remote.Check(); err != nil {
		return nil, nil, fmt.Errorf("initiating: %w", err)
	}
	if len(certificate) > MaxCertificate {
		return nil, nil, fmt.Errorf("initiating: certificate of %d bytes; at most %d", len(certificate), MaxCertificate)
	}
	c := l.config(random)
	c.Initiator = true
	c.PeerStatic = remote[:]
	c.PresharedKey = psk[:]
	state, err := noise.NewHandshakeState(c)
	if err != nil {
		return nil, nil, fmt.Errorf("initiating: %w", err)
	}

	ts := TimestampAt(now)
	payload := make([]byte, 0, payloadFixed+len(certificate))
	payload = append(payload, ts[:]...)
	payload = binary.BigEndian.AppendUint16(payload, uint16(len(certificate)))
	payload = append(payload, certificate...)

	msg := make([]byte, 0, InitiationLen+len(certificate))
	msg = append(msg, byte(KindInitiation), 0, 0, 0)
	msg = binary.BigEndian.AppendUint32(msg, uint32(sender))
	msg, _, _, err = state.WriteMessage(msg, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("initiating: %w", err)
	}
	return &Initiation{local: l, state: state, sender: sender}, sealMACs(msg, remote), nil
}

// Finish reads the response and returns the keys of the session; the initiation is then used
// up. After any error it is as it was, and waits for a better response: a forged one ends nothing.
// Errors: ErrMalformed, ErrIndex, ErrMAC1, ErrKey, ErrHandshake (which is also what a pre-shared
// key that differs looks like), ErrUsed.
func (i *Initiation) Finish(msg []byte) (Keys, error) {
	if i.state == nil {
		return Keys{}, ErrUsed
	}
	if KindOf(msg) != KindResponse {
		return Keys{}, ErrMalformed
	}
	if r, _ := ReceiverOf(msg); r != i.sender {
		return Keys{}, ErrIndex
	}
	if !i.local.CheckMAC1(msg) {
		return Keys{}, ErrMAC1
	}
	body, _, _ := splitMACs(msg)
	m := body[responsePrefix:]
	// noise restores its state when a tag is wrong, but not when a Diffie-Hellman result is zero. So
	// the one input by which that can happen is refused before it sees it.
	if err := PublicKey(m[:32]).Check(); err != nil {
		return Keys{}, err
	}
	payload, send, receive, err := i.state.ReadMessage(nil, m)
	if err != nil || len(payload) != 0 {
		return Keys{}, ErrHandshake
	}
	i.Wipe()
	return Keys{
		Send:        send.UnsafeKey(),
		Receive:     receive.UnsafeKey(),
		LocalIndex:  i.sender,
		RemoteIndex: Index(binary.BigEndian.Uint32(msg[4:])),
	}, nil
}

// Wipe forgets the handshake and zeroes its ephemeral private key. Finish then returns ErrUsed.
func (i *Initiation) Wipe() {
	if i.state != nil {
		clear(i.state.LocalEphemeral().Private)
		i.state = nil
	}
}

// A Request is an initiation received and authenticated, not yet answered: it was made by Remote,
// but perhaps long ago and sent by another. The fields are for reading. One goroutine at a time uses it.
type Request struct {
	Remote      PublicKey
	RemoteIndex Index
	Timestamp   Timestamp // take only one newer than the last of this key (§15)
	Certificate []byte    // may be empty

	state  *noise.HandshakeState // nil when answered
	random *lateSource           // where state draws from
}

// ReadInitiation reads an initiation, at the price of two Diffie-Hellman results, or one for a remote that Know was told
// of. Errors: ErrMalformed, ErrMAC1 and ErrKey of the ephemeral key, all before the first of them; then
// ErrHandshake, and ErrKey of the static key.
func (l *Local) ReadInitiation(msg []byte) (*Request, error) {
	if KindOf(msg) != KindInitiation {
		return nil, ErrMalformed
	}
	if !l.CheckMAC1(msg) {
		return nil, ErrMAC1
	}
	body, _, _ := splitMACs(msg)
	m := body[initiationPrefix:]
	if err := PublicKey(m[:32]).Check(); err != nil {
		return nil, err
	}
	random := new(lateSource)
	state, err := noise.NewHandshakeState(l.config(random))
	if err != nil {
		return nil, fmt.Errorf("reading an initiation: %w", err)
	}
	payload, _, _, err := state.ReadMessage(nil, m)
	// The static key is known once its own tag was right; if it is of low order, what followed failed for that.
	remote := state.PeerStatic()
	if len(remote) == len(PublicKey{}) {
		if err := PublicKey(remote).Check(); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, ErrHandshake
	}
	r := &Request{
		Remote:      PublicKey(remote),
		RemoteIndex: Index(binary.BigEndian.Uint32(msg[4:])),
		state:       state,
		random:      random,
	}
	if !r.readPayload(payload) {
		return nil, ErrMalformed
	}
	return r, nil
}

// readPayload takes exactly a timestamp, a certificate's length and that certificate.
func (r *Request) readPayload(b []byte) bool {
	if len(b) < payloadFixed {
		return false
	}
	r.Timestamp = Timestamp(b[:12])
	n := int(binary.BigEndian.Uint16(b[12:]))
	r.Certificate = b[payloadFixed:]
	return r.Timestamp.valid() && n <= MaxCertificate && n == len(r.Certificate)
}

// Respond makes the response, MAC2 still zero (see Cookie.Stamp), and the keys of a session that must not be
// used for sending, nor move a path, before its first data packet was opened (§15). psk is what was agreed
// with Remote, zero for none; that it differs from the initiator's cannot be noticed here. It reads 32
// bytes of random. A request is answered once: then ErrUsed. An error of random uses it up too.
func (r *Request) Respond(random io.Reader, psk PresharedKey, local Index) ([]byte, Keys, error) {
	if r.state == nil {
		return nil, Keys{}, ErrUsed
	}
	state := r.state
	r.state = nil
	r.random.Reader = source(random)
	if err := state.SetPresharedKey(psk[:]); err != nil {
		return nil, Keys{}, fmt.Errorf("responding: %w", err)
	}
	msg := make([]byte, 0, ResponseLen)
	msg = append(msg, byte(KindResponse), 0, 0, 0)
	msg = binary.BigEndian.AppendUint32(msg, uint32(local))
	msg = binary.BigEndian.AppendUint32(msg, uint32(r.RemoteIndex))
	msg, receive, send, err := state.WriteMessage(msg, nil)
	if err != nil {
		return nil, Keys{}, fmt.Errorf("responding: %w", err)
	}
	clear(state.LocalEphemeral().Private)
	keys := Keys{
		Send:        send.UnsafeKey(),
		Receive:     receive.UnsafeKey(),
		LocalIndex:  local,
		RemoteIndex: r.RemoteIndex,
	}
	return sealMACs(msg, r.Remote), keys, nil
}

// A lateSource gets its reader when the ephemeral key is due. noise asks for a random source at
// the start of a handshake, where a responder does not know yet whether it will answer.
type lateSource struct{ io.Reader }
