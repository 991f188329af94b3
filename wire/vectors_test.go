package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/flynn/noise"
)

var update = flag.Bool("update", false, "write testdata anew from the code")

// hexBytes are hex in JSON.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func readVectors(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// compareVectors fails unless testdata holds v, as JSON.
func compareVectors(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	if bytes.Equal(got, want) {
		return
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			t.Fatalf("%s:%d: the code says %s, the file %s; if the protocol was meant to change, run go test -update", path, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s: %d lines, the code says %d", path, len(w), len(g))
}

// seeded returns n bytes of a stream, so that vectors show their inputs.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	io.ReadFull(newStream(seed), b)
	return b
}

type handshakeVector struct {
	Name               string   `json:"name"`
	InitiatorPrivate   hexBytes `json:"initiator_private"`
	InitiatorPublic    hexBytes `json:"initiator_public"`
	ResponderPrivate   hexBytes `json:"responder_private"`
	ResponderPublic    hexBytes `json:"responder_public"`
	PresharedKey       hexBytes `json:"preshared_key"`
	InitiatorEphemeral hexBytes `json:"initiator_ephemeral"`
	ResponderEphemeral hexBytes `json:"responder_ephemeral"`
	UnixSeconds        int64    `json:"unix_seconds"`
	UnixNanoseconds    int      `json:"unix_nanoseconds"`
	Timestamp          hexBytes `json:"timestamp"`
	Certificate        hexBytes `json:"certificate"`
	InitiatorIndex     Index    `json:"initiator_index"`
	ResponderIndex     Index    `json:"responder_index"`
	Payload            hexBytes `json:"initiation_payload"`
	Initiation         hexBytes `json:"initiation"`
	Response           hexBytes `json:"response"`
	KeyToResponder     hexBytes `json:"key_initiator_to_responder"`
	KeyToInitiator     hexBytes `json:"key_responder_to_initiator"`
}

// The parties of all vectors.
func vectorParties(t testing.TB) (i, r *Local) { return newTestLocal(t, 1), newTestLocal(t, 2) }

func handshakeVectors(t testing.TB) []handshakeVector {
	i, r := vectorParties(t)
	longest := bytes.Repeat([]byte("certificate "), 50)[:MaxCertificate]
	var out []handshakeVector
	for _, c := range []struct {
		name string
		psk  []byte
		cert []byte
	}{
		{"plain", make([]byte, 32), nil},
		{"with a pre-shared key", seeded(3, 32), nil},
		{"with the longest certificate", make([]byte, 32), longest},
		{"with a pre-shared key and a certificate", seeded(3, 32), []byte("certificate")},
	} {
		v := handshakeVector{
			Name:             c.name,
			InitiatorPrivate: i.static.Private, InitiatorPublic: i.static.Public,
			ResponderPrivate: r.static.Private, ResponderPublic: r.static.Public,
			PresharedKey: c.psk, Certificate: c.cert,
			InitiatorEphemeral: seeded(4, 32), ResponderEphemeral: seeded(5, 32),
			UnixSeconds: start.Unix(), UnixNanoseconds: start.Nanosecond(),
			InitiatorIndex: 0x01020304, ResponderIndex: 0x0a0b0c0d,
		}
		ini, m1, err := i.Initiate(bytes.NewReader(v.InitiatorEphemeral), r.Public(), PresharedKey(c.psk), v.InitiatorIndex, start, c.cert)
		if err != nil {
			t.Fatal(err)
		}
		req, err := r.ReadInitiation(m1)
		if err != nil {
			t.Fatal(err)
		}
		m2, kr, err := req.Respond(bytes.NewReader(v.ResponderEphemeral), PresharedKey(c.psk), v.ResponderIndex)
		if err != nil {
			t.Fatal(err)
		}
		ki, err := ini.Finish(m2)
		if err != nil {
			t.Fatal(err)
		}
		wantSession(t, ki, kr)
		v.Timestamp = req.Timestamp[:]
		v.Payload = append(binary.BigEndian.AppendUint16(bytes.Clone(v.Timestamp), uint16(len(c.cert))), c.cert...)
		v.Initiation, v.Response, v.KeyToResponder, v.KeyToInitiator = m1, m2, ki.Send[:], ki.Receive[:]
		out = append(out, v)
	}
	return out
}

func TestHandshakeVectors(t *testing.T) {
	compareVectors(t, "handshake.json", handshakeVectors(t))

	// The specification of Noise, and §4 to §6 by hand, give the bytes of the file.
	var file []handshakeVector
	readVectors(t, "handshake.json", &file)
	for _, v := range file {
		m0, m1, toR, toI := plainHandshake(t, []byte("adit/1"), v.InitiatorPrivate, v.ResponderPrivate,
			v.InitiatorEphemeral, v.ResponderEphemeral, v.PresharedKey, v.Payload, nil)
		index := func(i Index) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
		if want := plainMACs(bytes.Join([][]byte{{1, 0, 0, 0}, index(v.InitiatorIndex), m0}, nil), v.ResponderPublic); !bytes.Equal(v.Initiation, want) {
			t.Errorf("%s: initiation", v.Name)
		}
		if want := plainMACs(bytes.Join([][]byte{{2, 0, 0, 0}, index(v.ResponderIndex), index(v.InitiatorIndex), m1}, nil), v.InitiatorPublic); !bytes.Equal(v.Response, want) {
			t.Errorf("%s: response", v.Name)
		}
		if !bytes.Equal(toR, v.KeyToResponder) || !bytes.Equal(toI, v.KeyToInitiator) {
			t.Errorf("%s: keys", v.Name)
		}
	}
}

type cookieVector struct {
	Name      string   `json:"name"`
	Secret    hexBytes `json:"secret"`
	From      string   `json:"from"`
	Cookie    hexBytes `json:"cookie"`
	Answers   hexBytes `json:"answers"` // the message as first sent
	Responder hexBytes `json:"responder_public"`
	Nonce     hexBytes `json:"nonce"`
	Reply     hexBytes `json:"reply"`
	Stamped   hexBytes `json:"stamped"` // the same message with MAC2
}

func cookieVectors(t testing.TB) []cookieVector {
	i, r := vectorParties(t)
	plain := handshakeVectors(t)[0]
	var out []cookieVector
	for _, c := range []struct {
		name string
		msg  []byte
		jar  *Local
		from netip.AddrPort
	}{
		{"initiation over IPv4", plain.Initiation, r, here},
		{"initiation over IPv6", plain.Initiation, r, there},
		{"response", plain.Response, i, here},
		{"a path without addresses", plain.Initiation, r, netip.AddrPort{}},
	} {
		v := cookieVector{Name: c.name, Secret: seeded(6, 32), Answers: c.msg, Responder: c.jar.static.Public, Nonce: seeded(7, 12)}
		if c.from.IsValid() {
			v.From = c.from.String()
		}
		jar, cookie := NewCookieJar(c.jar), NewCookie(c.jar.Public())
		msg := bytes.Clone(c.msg)
		cookie.Stamp(msg, start)
		reply, err := jar.AppendReply(nil, bytes.NewReader(slices.Concat(v.Secret, v.Nonce)), msg, c.from, start)
		if err != nil {
			t.Fatal(err)
		}
		if err := cookie.Open(reply, start); err != nil {
			t.Fatal(err)
		}
		if !cookie.Stamp(msg, start) || !jar.Check(msg, c.from, start) {
			t.Fatal("the cookie does not pass")
		}
		v.Cookie, v.Reply, v.Stamped = cookie.value[:], reply, msg
		out = append(out, v)
	}
	return out
}

type dataVector struct {
	Name     string   `json:"name"`
	Key      hexBytes `json:"key"`
	Receiver Index    `json:"receiver_index"`
	Counter  uint64   `json:"counter"`
	Flags    Flags    `json:"flags"`
	Inner    hexBytes `json:"inner"`
	Datagram hexBytes `json:"datagram"`
}

func dataVectors(t testing.TB) []dataVector {
	v := []dataVector{
		{Name: "keepalive", Counter: 0},
		{Name: "packet", Counter: 1, Inner: append([]byte{0x45, 0, 0, 20}, make([]byte, 16)...)},
		{Name: "packet with a partial checksum", Counter: 0x10000, Flags: FlagPartialChecksum, Inner: append([]byte{0x60}, make([]byte, 59)...)},
		{Name: "control message", Counter: RekeyAfterPackets, Inner: []byte{1, 1, 2, 3, 4, 5, 6, 7, 8}},
		{Name: "the last counter", Counter: RejectAfterPackets - 1, Inner: []byte{0x45}},
	}
	key := handshakeVectors(t)[0].KeyToResponder
	for i := range v {
		v := &v[i]
		v.Key, v.Receiver = key, 0x0a0b0c0d
		s := (&Keys{Send: SessionKey(v.Key), RemoteIndex: v.Receiver}).NewSealer()
		s.next.Store(v.Counter + 1)
		v.Datagram = slices.Concat(make([]byte, HeaderLen), v.Inner, make([]byte, TagLen))
		s.Seal(v.Datagram, v.Counter, v.Flags, new(Nonce))
	}
	return v
}

// Everything around encryption, by hand.
func TestDataVectors(t *testing.T) {
	compareVectors(t, "data.json", dataVectors(t))
	var file []dataVector
	readVectors(t, "data.json", &file)
	for _, v := range file {
		header := binary.BigEndian.AppendUint32([]byte{4, byte(v.Flags), 0, 0}, uint32(v.Receiver))
		header = binary.BigEndian.AppendUint64(header, v.Counter)
		if want := append(header, gcm(v.Key, v.Counter, header, v.Inner)...); !bytes.Equal(v.Datagram, want) {
			t.Errorf("%s: %x, want %x", v.Name, v.Datagram, want)
		}
		o := (&Keys{Receive: SessionKey(v.Key)}).NewOpener()
		if got, err := o.Open(make([]byte, len(v.Inner)), v.Datagram, new(Nonce)); err != nil || !bytes.Equal(got, v.Inner) {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestCookieVectors(t *testing.T) {
	compareVectors(t, "cookie.json", cookieVectors(t))
	var file []cookieVector
	readVectors(t, "cookie.json", &file)
	for _, v := range file {
		address := []byte{0, 0}
		if v.From != "" {
			from := netip.MustParseAddrPort(v.From)
			address = binary.BigEndian.AppendUint16(from.Addr().AsSlice(), from.Port())
		}
		if want := macOf(v.Secret, address); !bytes.Equal(v.Cookie, want[:]) {
			t.Errorf("%s: cookie", v.Name)
		}
		n := len(v.Answers)
		key := labelled("adit cookie", PublicKey(v.Responder))
		sealed := newAEAD(key).Seal(nil, v.Nonce, v.Cookie, v.Answers[n-32:n-16])
		if want := slices.Concat([]byte{3, 0, 0, 0}, v.Answers[4:8], v.Nonce, sealed); !bytes.Equal(v.Reply, want) {
			t.Errorf("%s: reply", v.Name)
		}
		m := macOf(v.Cookie, v.Answers[:n-16])
		if want := append(bytes.Clone(v.Answers[:n-16]), m[:]...); !bytes.Equal(v.Stamped, want) {
			t.Errorf("%s: stamped", v.Name)
		}
	}
}

type controlVector struct {
	Name   string   `json:"name"`
	Fields Control  `json:"fields"`
	Bytes  hexBytes `json:"bytes"`
}

func TestControlVectors(t *testing.T) {
	var out []controlVector
	all := controls(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b, err := all[name].Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, controlVector{name, all[name], b})
	}
	compareVectors(t, "control.json", out)
}

type frameVector struct {
	Name     string    `json:"name"`
	Index    Index     `json:"index,omitempty"`
	Code     int       `json:"code,omitempty"`
	Circuit  CircuitID `json:"circuit,omitzero"`
	Carried  hexBytes  `json:"carried,omitempty"`
	Whole    bool      `json:"whole,omitzero"`
	Datagram hexBytes  `json:"datagram"`
}

func TestFrameVectors(t *testing.T) {
	d := dataVectors(t)[1].Datagram
	carrying := slices.Concat(make([]byte, CircuitOverhead), d)
	PutCircuit(carrying, 0x1122334455667788)
	whole := bytes.Clone(carrying)
	SetWhole(whole)
	compareVectors(t, "frame.json", []frameVector{
		{Name: "notice", Index: 0x0a0b0c0d, Datagram: AppendNotice(nil, 0x0a0b0c0d)},
		{Name: "circuit data", Circuit: 0x1122334455667788, Carried: d, Datagram: carrying},
		{Name: "circuit data, whole", Circuit: 0x1122334455667788, Carried: d, Whole: true, Datagram: whole},
		{Name: "circuit notice, moved", Code: 1, Circuit: 0x1122334455667788, Datagram: AppendCircuitNotice(nil, CircuitMoved, 0x1122334455667788)},
		{Name: "circuit notice, unknown", Code: 2, Circuit: 0x1122334455667788, Datagram: AppendCircuitNotice(nil, CircuitUnknown, 0x1122334455667788)},
	})
}

// A refusedVector is something a reader must refuse. The parties are those of the plain handshake.
type refusedVector struct {
	Name   string   `json:"name"`
	Reader string   `json:"reader"` // initiation, response, cookie reply, data, control message, datagram
	Bytes  hexBytes `json:"bytes"`
	Reason string   `json:"reason"`
}

var reasons = map[string]error{
	"malformed": ErrMalformed,
	"mac1":      ErrMAC1,
	"key":       ErrKey,
	"handshake": ErrHandshake,
	"index":     ErrIndex,
	"tag":       ErrTag,
}

func refusedVectors(t testing.TB) []refusedVector {
	i, r := vectorParties(t)
	hs := handshakeVectors(t)
	plain, other := hs[0], hs[1]
	reply, data := cookieVectors(t)[0].Reply, dataVectors(t)[1].Datagram
	var out []refusedVector
	add := func(reader, name, reason string, b []byte) {
		out = append(out, refusedVector{name, reader, b, reason})
	}
	flip := func(b []byte, at int) []byte { return with(b, at, b[at]^1) }
	low := func(n int) func([]byte) { return func(p []byte) { copy(p, lowOrderKeys[n][:]) } }
	ts := goodPayload()[:12]

	m := plain.Initiation
	add("initiation", "of kind 0", "malformed", with(m, 0, 0))
	add("initiation", "of kind 2", "malformed", with(m, 0, 2))
	add("initiation", "byte 1 not zero", "malformed", with(m, 1, 1))
	add("initiation", "byte 3 not zero", "malformed", with(m, 3, 1))
	add("initiation", "one byte short", "malformed", m[:len(m)-1])
	add("initiation", "one byte long", "mac1", append(bytes.Clone(m), 0))
	add("initiation", "sender index flipped", "mac1", flip(m, 4))
	add("initiation", "ephemeral key flipped", "mac1", flip(m, 8))
	add("initiation", "MAC1 flipped", "mac1", flip(m, len(m)-32))
	add("initiation", "MAC1 for another public key", "mac1", resign(m, i.Public()))
	add("initiation", "ephemeral key flipped, MAC1 right", "handshake", resign(flip(m, 8), r.Public()))
	add("initiation", "static key flipped, MAC1 right", "handshake", resign(flip(m, 40), r.Public()))
	add("initiation", "tag of the static key flipped, MAC1 right", "handshake", resign(flip(m, 72), r.Public()))
	add("initiation", "payload flipped, MAC1 right", "handshake", resign(flip(m, 88), r.Public()))
	add("initiation", "tag of the payload flipped, MAC1 right", "handshake", resign(flip(m, 102), r.Public()))
	add("initiation", "ephemeral key zero", "key", craft(t, r.Public(), i.static, low(0), goodPayload()))
	add("initiation", "ephemeral key of order 8", "key", craft(t, r.Public(), i.static, low(2), goodPayload()))
	add("initiation", "ephemeral key with its high bit set", "key", craft(t, r.Public(), i.static, otherForm, goodPayload()))
	for n := range lowOrderKeys {
		add("initiation", fmt.Sprintf("static key of low order, %d", n+1), "key", craft(t, r.Public(), bentStatic(i, low(n)), nil, goodPayload()))
	}
	add("initiation", "static key with its high bit set", "key", craft(t, r.Public(), bentStatic(i, otherForm), nil, goodPayload()))
	add("initiation", "static key of another", "handshake",
		craft(t, r.Public(), noise.DHKey{Private: i.static.Private, Public: r.static.Public}, nil, goodPayload()))
	add("initiation", "certificate longer than said", "malformed", craft(t, r.Public(), i.static, nil, slices.Concat(ts, []byte{0, 3}, []byte("cert"))))
	add("initiation", "certificate shorter than said", "malformed", craft(t, r.Public(), i.static, nil, slices.Concat(ts, []byte{0, 5}, []byte("cert"))))
	add("initiation", "payload without a length", "malformed", craft(t, r.Public(), i.static, nil, ts))
	add("initiation", "timestamp of 10^9 nanoseconds", "malformed",
		craft(t, r.Public(), i.static, nil, slices.Concat(ts[:8], []byte{0x3b, 0x9a, 0xca, 0, 0, 0})))

	m = plain.Response
	add("response", "of kind 1", "malformed", with(m, 0, 1))
	add("response", "byte 2 not zero", "malformed", with(m, 2, 1))
	add("response", "one byte short", "malformed", m[:len(m)-1])
	add("response", "one byte long", "malformed", append(bytes.Clone(m), 0))
	add("response", "to another initiation", "index", resign(flip(m, 8), i.Public()))
	add("response", "MAC1 flipped", "mac1", flip(m, len(m)-32))
	add("response", "ephemeral key flipped, MAC1 right", "handshake", resign(flip(m, 12), i.Public()))
	add("response", "tag flipped, MAC1 right", "handshake", resign(flip(m, 44), i.Public()))
	add("response", "under another pre-shared key", "handshake", other.Response)
	for n := range lowOrderKeys {
		b := bytes.Clone(m)
		low(n)(b[12:])
		add("response", fmt.Sprintf("ephemeral key of low order, %d", n+1), "key", resign(b, i.Public()))
	}
	b := bytes.Clone(m)
	otherForm(b[12:])
	add("response", "ephemeral key with its high bit set", "key", resign(b, i.Public()))

	add("cookie reply", "of kind 2", "malformed", with(reply, 0, 2))
	add("cookie reply", "one byte short", "malformed", reply[:len(reply)-1])
	add("cookie reply", "one byte long", "malformed", append(bytes.Clone(reply), 0))
	add("cookie reply", "nonce flipped", "tag", flip(reply, 8))
	add("cookie reply", "cookie flipped", "tag", flip(reply, 20))
	add("cookie reply", "tag flipped", "tag", flip(reply, 36))
	add("cookie reply", "to another message", "tag", cookieVectors(t)[2].Reply)

	add("data", "of kind 5", "malformed", with(data, 0, 5))
	add("data", "unknown flag", "malformed", with(data, 1, 2))
	add("data", "byte 2 not zero", "malformed", with(data, 2, 1))
	add("data", "shorter than header and tag", "malformed", data[:DataOverhead-1])
	add("data", "counter past the last", "malformed", with(data, 11, 1))
	add("data", "known flag flipped", "tag", flip(data, 1))
	add("data", "receiver index flipped", "tag", flip(data, 4))
	add("data", "counter flipped", "tag", flip(data, 15))
	add("data", "inner bytes flipped", "tag", flip(data, 16))
	add("data", "tag flipped", "tag", flip(data, len(data)-1))
	add("data", "one byte short", "tag", data[:len(data)-1])
	add("data", "one byte long", "tag", append(bytes.Clone(data), 0))

	bad := malformedControls(t)
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		b, err := hex.DecodeString(bad[name])
		if err != nil {
			t.Fatal(err)
		}
		add("control message", name, "malformed", b)
	}

	notice := AppendNotice(nil, 7)
	carrying := slices.Concat(make([]byte, CircuitOverhead), notice)
	PutCircuit(carrying, 5)
	add("datagram", "empty", "malformed", nil)
	add("datagram", "of kind 0", "malformed", with(notice, 0, 0))
	add("datagram", "of kind 8", "malformed", with(notice, 0, 8))
	add("datagram", "notice, byte 1 not zero", "malformed", with(notice, 1, 1))
	add("datagram", "notice, one byte long", "malformed", append(bytes.Clone(notice), 0))
	add("datagram", "circuit data, id zero", "malformed", with(carrying, 11, 0))
	add("datagram", "circuit data, unknown flag", "malformed", with(carrying, 1, 2))
	add("datagram", "circuit data, nothing carried", "malformed", carrying[:CircuitOverhead])
	add("datagram", "circuit data, circuit data carried", "malformed", with(carrying, CircuitOverhead, 6))
	add("datagram", "circuit notice, code 3", "malformed", AppendCircuitNotice(nil, 3, 5))
	add("datagram", "circuit notice, id zero", "malformed", AppendCircuitNotice(nil, CircuitMoved, 0))
	return out
}

func TestRefusedVectors(t *testing.T) {
	compareVectors(t, "refused.json", refusedVectors(t))

	i, r := vectorParties(t)
	var hs []handshakeVector
	readVectors(t, "handshake.json", &hs)
	plain := hs[0]
	initiation := func() (*Initiation, []byte) {
		ini, msg, err := i.Initiate(bytes.NewReader(plain.InitiatorEphemeral), r.Public(), PresharedKey{}, plain.InitiatorIndex,
			time.Unix(plain.UnixSeconds, int64(plain.UnixNanoseconds)), nil)
		if err != nil {
			t.Fatal(err)
		}
		return ini, msg
	}
	var file []refusedVector
	readVectors(t, "refused.json", &file)
	for _, v := range file {
		t.Run(v.Reader+"/"+v.Name, func(t *testing.T) {
			var err error
			switch v.Reader {
			case "initiation":
				_, err = r.ReadInitiation(v.Bytes)
			case "response":
				ini, _ := initiation()
				_, err = ini.Finish(v.Bytes)
				if _, err := ini.Finish(plain.Response); err != nil {
					t.Errorf("the true response after it: %v", err)
				}
			case "cookie reply":
				_, msg := initiation()
				c := NewCookie(r.Public())
				c.Stamp(msg, start)
				err = c.Open(v.Bytes, start)
			case "data":
				_, err = (&Keys{Receive: SessionKey(plain.KeyToResponder)}).NewOpener().Open(make([]byte, 100), v.Bytes, new(Nonce))
			case "control message":
				_, err = ParseControl(v.Bytes)
			case "datagram":
				if KindOf(v.Bytes) == KindInvalid {
					err = ErrMalformed
				}
			default:
				t.Fatal("unknown reader")
			}
			if want := reasons[v.Reason]; want == nil || !errors.Is(err, want) {
				t.Errorf("%v; want %s", err, v.Reason)
			}
		})
	}
}

// plainMACs ends a message as §6 says.
func plainMACs(body, receiver []byte) []byte {
	key := labelled("adit mac1", PublicKey(receiver))
	m := macOf(key[:], body)
	return slices.Concat(body, m[:], make([]byte, 16))
}
