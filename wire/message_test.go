package wire

import (
	"bytes"
	"testing"
)

func zeros(first byte, n int) []byte {
	b := make([]byte, n)
	if n > 0 {
		b[0] = first
	}
	return b
}

func with(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

func TestKindOf(t *testing.T) {
	circuit := make([]byte, CircuitOverhead, 100)
	PutCircuit(circuit, 5)
	inCircuit := func(inner []byte) []byte { return append(bytes.Clone(circuit), inner...) }
	notice := AppendNotice(nil, 7)
	for _, c := range []struct {
		name string
		in   []byte
		want Kind
	}{
		{"empty", nil, KindInvalid},
		{"one byte", []byte{4}, KindInvalid},
		{"kind 0", zeros(0, 200), KindInvalid},
		{"kind 8", zeros(8, 200), KindInvalid},
		{"an IPv4 packet", zeros(0x45, 200), KindInvalid},
		{"initiation", zeros(1, InitiationLen), KindInitiation},
		{"initiation, longest", zeros(1, MaxInitiationLen), KindInitiation},
		{"initiation, short", zeros(1, InitiationLen-1), KindInvalid},
		{"initiation, long", zeros(1, MaxInitiationLen+1), KindInvalid},
		{"initiation, byte 1 not zero", with(zeros(1, InitiationLen), 1, 1), KindInvalid},
		{"initiation, byte 3 not zero", with(zeros(1, InitiationLen), 3, 1), KindInvalid},
		{"response", zeros(2, ResponseLen), KindResponse},
		{"response, short", zeros(2, ResponseLen-1), KindInvalid},
		{"response, long", zeros(2, ResponseLen+1), KindInvalid},
		{"response, byte 2 not zero", with(zeros(2, ResponseLen), 2, 1), KindInvalid},
		{"cookie reply", zeros(3, CookieReplyLen), KindCookieReply},
		{"cookie reply, short", zeros(3, CookieReplyLen-1), KindInvalid},
		{"cookie reply, long", zeros(3, CookieReplyLen+1), KindInvalid},
		{"data", zeros(4, DataOverhead), KindData},
		{"data, long", zeros(4, 65535), KindData},
		{"data, short", zeros(4, DataOverhead-1), KindInvalid},
		{"data, partial checksum", with(zeros(4, DataOverhead), 1, 1), KindData},
		{"data, unknown flag", with(zeros(4, DataOverhead), 1, 2), KindInvalid},
		{"data, byte 2 not zero", with(zeros(4, DataOverhead), 2, 1), KindInvalid},
		{"data, byte 3 not zero", with(zeros(4, DataOverhead), 3, 1), KindInvalid},
		{"data, counter past the last", with(zeros(4, DataOverhead), 11, 1), KindInvalid},
		{"data, greatest counter", with(with(zeros(4, DataOverhead), 12, 0xff), 15, 0xff), KindData},
		{"notice", notice, KindNotice},
		{"notice, short", notice[:7], KindInvalid},
		{"notice, long", append(bytes.Clone(notice), 0), KindInvalid},
		{"circuit data", inCircuit(notice), KindCircuit},
		{"circuit data, long", inCircuit(zeros(4, 65000)), KindCircuit},
		{"circuit data, nothing in it", circuit, KindInvalid},
		{"circuit data, too little in it", inCircuit(notice[:7]), KindInvalid},
		{"circuit data, kind 0 in it", inCircuit(zeros(0, 40)), KindInvalid},
		{"circuit data in circuit data", inCircuit(inCircuit(notice)), KindInvalid},
		{"circuit data, circuit notice in it", inCircuit(AppendCircuitNotice(nil, CircuitMoved, 1)), KindInvalid},
		{"circuit data, id zero", with(inCircuit(notice), 11, 0), KindInvalid},
		{"circuit data, whole", with(inCircuit(notice), 1, 1), KindCircuit},
		{"circuit data, unknown flag", with(inCircuit(notice), 1, 2), KindInvalid},
		{"circuit data, whole and an unknown flag", with(inCircuit(notice), 1, 0x81), KindInvalid},
		{"circuit notice, moved", AppendCircuitNotice(nil, CircuitMoved, 1), KindCircuitNotice},
		{"circuit notice, unknown", AppendCircuitNotice(nil, CircuitUnknown, 1), KindCircuitNotice},
		{"circuit notice, code 0", AppendCircuitNotice(nil, 0, 1), KindInvalid},
		{"circuit notice, code 3", AppendCircuitNotice(nil, 3, 1), KindInvalid},
		{"circuit notice, id zero", AppendCircuitNotice(nil, CircuitMoved, 0), KindInvalid},
		{"circuit notice, short", AppendCircuitNotice(nil, CircuitMoved, 1)[:11], KindInvalid},
		{"circuit notice, long", append(AppendCircuitNotice(nil, CircuitMoved, 1), 0), KindInvalid},
		{"circuit notice, byte 3 not zero", with(AppendCircuitNotice(nil, CircuitMoved, 1), 3, 1), KindInvalid},
	} {
		if got := KindOf(c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		// Each parser is as strict alone.
		_, data := ParseData(c.in)
		_, notice := ParseNotice(c.in)
		_, _, circuit := ParseCircuit(c.in)
		_, _, circuitNotice := ParseCircuitNotice(c.in)
		for k, ok := range map[Kind]bool{KindData: data, KindNotice: notice, KindCircuit: circuit, KindCircuitNotice: circuitNotice} {
			if ok != (c.want == k) {
				t.Errorf("%s: parser of %v says %v", c.name, k, ok)
			}
		}
	}
}

func TestNoticeAndCircuit(t *testing.T) {
	if i, ok := ParseNotice(AppendNotice(nil, 0xdeadbeef)); !ok || i != 0xdeadbeef {
		t.Errorf("notice: %x, %v", i, ok)
	}
	b := append(make([]byte, CircuitOverhead), AppendNotice(nil, 7)...)
	PutCircuit(b, 0x0102030405060708)
	SetCircuit(b, 0x1112131415161718)
	if IsWhole(b) {
		t.Error("circuit data is whole that nobody marked")
	}
	SetWhole(b)
	SetCircuit(b, 0x1112131415161718)
	if !IsWhole(b) {
		t.Error("the mark is gone with another id")
	}
	id, inner, ok := ParseCircuit(b)
	if !ok || id != 0x1112131415161718 || &inner[0] != &b[CircuitOverhead] || len(inner) != NoticeLen {
		t.Errorf("circuit: %v, %x, %v", id, inner, ok)
	}
	if s := CircuitID(0x1a).String(); s != "000000000000001a" {
		t.Errorf("circuit id prints as %s", s)
	}
	code, id, ok := ParseCircuitNotice(AppendCircuitNotice(nil, CircuitUnknown, 9))
	if !ok || code != CircuitUnknown || id != 9 {
		t.Errorf("circuit notice: %v %v %v", code, id, ok)
	}
}

// What an answer costs the one whose address was forged is never more than what was sent in his name.
func TestAnswersDoNotAmplify(t *testing.T) {
	for _, c := range []struct {
		name          string
		cause, answer int
	}{
		{"response to initiation", InitiationLen, ResponseLen},
		{"cookie reply to initiation", InitiationLen, CookieReplyLen},
		{"cookie reply to response", ResponseLen, CookieReplyLen},
		{"notice to data", DataOverhead, NoticeLen},
		{"circuit notice to circuit data", CircuitOverhead + NoticeLen, CircuitNoticeLen},
	} {
		if c.answer > c.cause {
			t.Errorf("%s: %d bytes for %d", c.name, c.answer, c.cause)
		}
	}
}

// The default overlay MTU fits an Ethernet frame with a circuit over IPv6.
func TestOverheadFits(t *testing.T) {
	if n := 1400 + DataOverhead + CircuitOverhead + 40 + 8; n > 1500 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzKindOf(f *testing.F) {
	f.Add(AppendNotice(nil, 7))
	f.Add(AppendCircuitNotice(nil, CircuitMoved, 1))
	b := append(make([]byte, CircuitOverhead), AppendNotice(nil, 7)...)
	PutCircuit(b, 5)
	f.Add(b)
	whole := bytes.Clone(b)
	SetWhole(whole)
	f.Add(whole)
	f.Add(zeros(4, DataOverhead))
	f.Add(zeros(1, InitiationLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := KindOf(b)
		if k != KindInvalid && byte(k) != b[0] {
			t.Fatalf("%x is %v", b, k)
		}
		if i, ok := ParseNotice(b); ok != (k == KindNotice) || ok && !bytes.Equal(AppendNotice(nil, i), b) {
			t.Fatalf("notice %x", b)
		}
		if code, id, ok := ParseCircuitNotice(b); ok != (k == KindCircuitNotice) || ok && !bytes.Equal(AppendCircuitNotice(nil, code, id), b) {
			t.Fatalf("circuit notice %x", b)
		}
		id, inner, ok := ParseCircuit(b)
		if ok != (k == KindCircuit) {
			t.Fatalf("circuit data %x", b)
		}
		if ok {
			again := append(make([]byte, CircuitOverhead), inner...)
			PutCircuit(again, id)
			if IsWhole(b) {
				SetWhole(again)
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("%x is %x", b, again)
			}
		}
		ReceiverOf(b)
	})
}
