package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// A CookieJar is what a responder proves addresses by (§7). A cookie is a function of a secret and
// the sender's address; nothing is stored for a sender. One goroutine at a time uses a jar.
type CookieJar struct {
	aead    cipher.AEAD // seals cookies for those who know our public key
	secrets [2]cookieSecret
}

type cookieSecret struct {
	key  [32]byte
	born time.Time
	set  bool
}

// usable: a secret hands out cookies for one CookieLife, and what it handed out last is good for
// another.
func (s *cookieSecret) usable(now time.Time, age time.Duration) bool {
	return s.set && now.Sub(s.born) < age
}

// NewCookieJar returns the jar of the responder l.
func NewCookieJar(l *Local) *CookieJar {
	return &CookieJar{aead: newAEAD(cookieKey(l.public))}
}

// Check reports whether msg, an initiation or response whose MAC1 was checked, carries a MAC2 made with a
// cookie that this jar gave to the address from, and thus that its sender receives there.
func (j *CookieJar) Check(msg []byte, from netip.AddrPort, now time.Time) bool {
	if !carriesMACs(msg) {
		return false
	}
	_, _, mac2 := splitMACs(msg)
	if mac(mac2) == (mac{}) {
		return false // it shows none (§6)
	}
	for i := range j.secrets {
		s := &j.secrets[i]
		if !s.usable(now, 2*CookieLife) {
			continue
		}
		cookie := cookieFor(s, from)
		want := macOf(cookie[:], msg[:len(msg)-macLen])
		if hmac.Equal(want[:], mac2) {
			return true
		}
	}
	return false
}

// AppendReply appends to dst the cookie reply to msg, an initiation or response whose MAC1 was checked (an ErrMalformed
// otherwise). It is shorter than msg. It reads 12 bytes of random, and 32 more when the secret is due. With room for it in dst
// it allocates nothing, for it is what a flood is answered by.
func (j *CookieJar) AppendReply(dst []byte, random io.Reader, msg []byte, from netip.AddrPort, now time.Time) ([]byte, error) {
	if !carriesMACs(msg) {
		return nil, ErrMalformed
	}
	random = source(random)
	if !j.secrets[0].usable(now, CookieLife) {
		s := cookieSecret{born: now, set: true}
		if _, err := io.ReadFull(random, s.key[:]); err != nil {
			return nil, fmt.Errorf("renewing the cookie secret: %w", err)
		}
		j.secrets[1], j.secrets[0] = j.secrets[0], s
	}
	n := len(dst)
	dst = append(dst, byte(KindCookieReply), 0, 0, 0)
	dst = append(dst, msg[4:8]...)
	dst = slices.Grow(dst, CookieReplyLen-8)[:n+CookieReplyLen]
	b := dst[n:]
	nonce := b[8:20]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("sealing a cookie: %w", err)
	}
	cookie := cookieFor(&j.secrets[0], from)
	copy(b[20:], cookie[:])
	_, mac1, _ := splitMACs(msg)
	j.aead.Seal(b[20:20], nonce, b[20:20+macLen], mac1)
	return dst, nil
}

// cookieFor: an IPv4 address is the same address whether a dual-stack socket mapped it or not. An
// invalid address, as of a stream, counts as no bytes and port 0.
func cookieFor(s *cookieSecret, from netip.AddrPort) mac {
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], from.Port())
	return macOf(s.key[:], from.Addr().Unmap().AsSlice(), port[:])
}

// A Cookie is what an initiator, or a responder whose response was answered so, keeps of one remote's cookie
// (§7). One goroutine at a time uses it.
type Cookie struct {
	remote PublicKey
	aead   cipher.AEAD // nil until a reply comes, which for most remotes never happens

	sent  [2]sentMAC // of the last initiation and the last response stamped
	value mac
	got   time.Time
	held  bool
}

type sentMAC struct {
	mac1 mac
	open bool // a cookie reply to it may still come
}

// NewCookie returns an empty holder for the cookie of remote.
func NewCookie(remote PublicKey) *Cookie {
	return &Cookie{remote: remote}
}

// Stamp writes MAC2 into msg, an initiation or response about to be sent to the remote, if a fresh cookie is held,
// and reports whether it did. It remembers MAC1 of msg for Open, so every message goes through it, and
// a message sent again goes through it again.
func (c *Cookie) Stamp(msg []byte, now time.Time) bool {
	if !carriesMACs(msg) {
		return false
	}
	_, mac1, mac2 := splitMACs(msg)
	c.sent[msg[0]-byte(KindInitiation)] = sentMAC{mac1: mac(mac1), open: true}
	clear(mac2)
	if !c.held || now.Sub(c.got) >= CookieLife {
		return false
	}
	m := macOf(c.value[:], msg[:len(msg)-macLen])
	copy(mac2, m[:])
	return true
}

// Open takes the cookie out of a cookie reply to what was stamped last. The message it answers is
// not accepted by the remote: make a new one and stamp it. A reply that does not answer one of the last
// messages, or was seen, is ErrTag and changes nothing.
func (c *Cookie) Open(reply []byte, now time.Time) error {
	if KindOf(reply) != KindCookieReply {
		return ErrMalformed
	}
	for i := range c.sent {
		s := &c.sent[i]
		if !s.open {
			continue
		}
		if c.aead == nil {
			c.aead = newAEAD(cookieKey(c.remote))
		}
		v, err := c.aead.Open(nil, reply[8:20], reply[20:], s.mac1[:])
		if err != nil {
			continue
		}
		s.open = false
		c.value, c.got, c.held = mac(v), now, true
		return nil
	}
	return ErrTag
}

func newAEAD(key [32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size GCM wants
	}
	return aead
}
