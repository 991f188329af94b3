package relay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/wire"
)

func TestDirectoryAnswersByAddressKeyAndName(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		b.absent = true
		asker := l.member("asker")
		site := l.member("site")
		l.cfg.Members[len(l.cfg.Members)-1].AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
		hub := netip.MustParsePrefix("10.9.9.9/16")
		l.cfg.Name, l.cfg.Engine.Device, l.cfg.Engine.Addresses = "hub", newDevice(), []netip.Prefix{hub}
		l.start()
		if !asker.connect() {
			t.Fatal("no session")
		}
		ofA := wire.Member{Key: a.key.Public(), Name: "a", Online: true, Observed: a.addr, Prefixes: l.cfg.Members[0].AllowedIPs}
		ofB := wire.Member{Key: b.key.Public(), Name: "b", Prefixes: l.cfg.Members[1].AllowedIPs}
		ofSite := wire.Member{Key: site.key.Public(), Name: "site", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
		ofHub := wire.Member{Key: l.key.Public(), Name: "hub", Online: true, Prefixes: []netip.Prefix{netip.PrefixFrom(hub.Addr(), 32)}}
		for _, test := range []struct {
			name string
			ask  wire.Lookup
			want wire.Member // without a key: not found
		}{
			{"address", wire.Lookup{By: wire.ByAddress, Address: a.ip}, ofA},
			{"IPv6 address", wire.Lookup{By: wire.ByAddress, Address: a.ip6}, ofA},
			{"address of one that is offline", wire.Lookup{By: wire.ByAddress, Address: b.ip}, ofB},
			{"address in a network", wire.Lookup{By: wire.ByAddress, Address: netip.MustParseAddr("10.9.200.1")}, ofSite},
			{"address of the relay", wire.Lookup{By: wire.ByAddress, Address: hub.Addr()}, ofHub},
			{"address of nobody", wire.Lookup{By: wire.ByAddress, Address: netip.MustParseAddr("10.10.0.1")}, wire.Member{}},
			{"key", wire.Lookup{By: wire.ByKey, Key: a.key.Public()}, ofA},
			{"key of the relay", wire.Lookup{By: wire.ByKey, Key: l.key.Public()}, ofHub},
			{"key of nobody", wire.Lookup{By: wire.ByKey, Key: l.stranger().key.Public()}, wire.Member{}},
			{"name", wire.Lookup{By: wire.ByName, Name: "b"}, ofB},
			{"name of the relay", wire.Lookup{By: wire.ByName, Name: "hub"}, ofHub},
			{"name of nobody", wire.Lookup{By: wire.ByName, Name: "nobody"}, wire.Member{}},
		} {
			got := asker.lookup(test.ask)
			want := wire.LookupReply{ID: got.ID, Status: wire.LookupFound, Member: test.want}
			if test.want.Key.IsZero() {
				want.Status = wire.LookupNotFound
			}
			if got.Status != want.Status || !sameMember(got.Member, want.Member) {
				t.Errorf("%s: %+v, want %+v", test.name, got, want)
			}
		}
	})
}

func sameMember(a, b wire.Member) bool {
	return a.Key == b.Key && a.Name == b.Name && a.Online == b.Online && a.Observed == b.Observed && slices.Equal(a.Prefixes, b.Prefixes)
}

// What the directory says of a member follows where the member is.
func TestDirectoryFollowsTheMember(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		asker, b := l.member("asker"), l.member("b")
		l.start()
		asker.connect()
		about := wire.Lookup{By: wire.ByKey, Key: b.key.Public()}
		if m := asker.lookup(about).Member; m.Online || m.Observed.IsValid() {
			t.Errorf("before it was there: %+v", m)
		}
		b.connect()
		if m := asker.lookup(about).Member; !m.Online || m.Observed != b.addr {
			t.Errorf("at %v it is reported as %+v", b.addr, m)
		}
		moved := netip.AddrPortFrom(b.addr.Addr(), 4444)
		if err := b.wire.Rebind(moved); err != nil {
			t.Fatal(err)
		}
		b.keepalive()
		if m := asker.lookup(about).Member; m.Observed != moved {
			t.Errorf("moved to %v it is reported as %+v", moved, m)
		}
		advance(wire.RejectAfter)
		asker.connect()
		if m := asker.lookup(about).Member; m.Online || m.Observed.IsValid() {
			t.Errorf("after its session: %+v", m)
		}
	})
}

func TestTooManyQuestionsAreToldToTryLater(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		greedy, modest := l.member("greedy"), l.member("modest")
		l.start()
		greedy.connect()
		modest.connect()
		about := wire.Lookup{By: wire.ByName, Name: "modest"}
		for range questionsAtOnce {
			if s := greedy.lookup(about).Status; s != wire.LookupFound {
				t.Fatalf("a question within the limit: %v", s)
			}
		}
		if s := greedy.lookup(about).Status; s != wire.LookupTryLater {
			t.Errorf("one more: %v", s)
		}
		if s := greedy.open(modest.key.Public()).Status; s != wire.CircuitLimit {
			t.Errorf("a circuit: %v", s)
		}
		if s := modest.lookup(about).Status; s != wire.LookupFound {
			t.Errorf("another member: %v", s)
		}
		if n := l.relay.Stats().Drops["question_limit"]; n != 2 {
			t.Errorf("%d refusals are counted, want 2", n)
		}
		advance(time.Second)
		for range questionsPerSecond {
			if s := greedy.lookup(about).Status; s != wire.LookupFound {
				t.Fatalf("a second later: %v", s)
			}
		}
	})
}

func TestStrangersAreToldNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		stranger := l.stranger()
		a := l.member("a")
		l.start()
		a.connect()
		if stranger.connect() {
			t.Fatal("a stranger has a session")
		}
		if n := l.relay.Engine().Dropped(engine.DropUnknownKey); n != 1 {
			t.Errorf("%d initiations of unknown keys counted, want 1", n)
		}
		// Sealed by keys the relay does not share, whatever index they are for.
		stranger.sealer, stranger.opener = a.sealer, a.opener
		question, err := wire.Lookup{ID: 7, By: wire.ByName, Name: "a"}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		forged := stranger.seal(question)
		forged[len(forged)-1] ^= 1
		stranger.send(forged)
		if got := stranger.takes(wire.KindData); len(got) != 0 {
			t.Errorf("a stranger was sent %d datagrams", len(got))
		}
		if n := l.relay.Engine().Dropped(engine.DropTag); n != 1 {
			t.Errorf("%d forged datagrams counted, want 1", n)
		}
		synctest.Wait()
	})
}

// What could not be told to members later is refused when the relay is made.
func TestNewRefusesWhatTheDirectoryCouldNotTell(t *testing.T) {
	key := func(i byte) wire.PublicKey { return wire.PrivateKey{1: i, 31: 0x40}.Public() }
	prefixes := func(n int) (all []netip.Prefix) {
		for i := range n {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32))
		}
		return all
	}
	one := []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}
	for _, test := range []struct {
		name    string
		members []Member
		want    string // in the error; empty: none
	}{
		{"two members", []Member{{Name: "a", PublicKey: key(1), AllowedIPs: one}, {Name: "b", PublicKey: key(2)}}, ""},
		{"no names", []Member{{PublicKey: key(1)}, {PublicKey: key(2)}}, ""},
		{"most prefixes", []Member{{PublicKey: key(1), AllowedIPs: prefixes(wire.MaxPrefixes)}}, ""},
		{"one key twice", []Member{{Name: "a", PublicKey: key(1)}, {Name: "b", PublicKey: key(1)}}, "another remote's"},
		{"the relay's key", []Member{{Name: "a", PublicKey: key(9)}}, "our own"},
		{"no key", []Member{{Name: "a"}}, "low order"},
		{"one name twice", []Member{{Name: "a", PublicKey: key(1)}, {Name: "a", PublicKey: key(2)}}, "also that of"},
		{"the relay's name", []Member{{Name: "hub", PublicKey: key(1)}}, "also that of"},
		{"a prefix twice", []Member{{Name: "a", PublicKey: key(1), AllowedIPs: one}, {Name: "b", PublicKey: key(2), AllowedIPs: one}}, "also that of"},
		{"the relay's address", []Member{{Name: "a", PublicKey: key(1), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")}}}, "also that of"},
		{"a name that is none", []Member{{Name: "A b", PublicKey: key(1)}}, "lower-case"},
		{"too many prefixes", []Member{{Name: "a", PublicKey: key(1), AllowedIPs: prefixes(wire.MaxPrefixes + 1)}}, "at most 56"},
		{"bits beyond the prefix", []Member{{Name: "a", PublicKey: key(1), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}}}, "beyond"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := New(Config{
				Name:    "hub",
				Engine:  engine.Config{PrivateKey: wire.PrivateKey{1: 9, 31: 0x40}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/24")}},
				Members: test.members,
			})
			if err == nil {
				r.Close()
			}
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q in it", err, test.want)
			}
		})
	}
}

// TestDefaultRouteLeavesTheOverlayToTheDirectory: a peer that sends all else to an exit still asks its relay for
// members it does not list.
func TestDefaultRouteLeavesTheOverlayToTheDirectory(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, exit := l.plan("a"), l.plan("b"), l.plan("exit")
		l.start()
		if _, err := a.engine.AddRemote(engine.RemoteConfig{
			Name: "exit", PublicKey: exit.key.Public(),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.PrefixFrom(exit.ip, 32)},
		}); err != nil {
			t.Fatal(err)
		}
		a.send(b, "to a member")
		b.wantsWithin(time.Second, "to a member")
		b.send(a, "and back")
		a.wantsWithin(time.Second, "and back")
		a.dev.in <- udpPacket(a.ip, netip.MustParseAddr("8.8.8.8"), "to the world")
		exit.wantsWithin(2*time.Second, "to the world")
		exit.dev.in <- udpPacket(netip.MustParseAddr("8.8.8.8"), a.ip, "from the world")
		exit.dev.in <- udpPacket(b.ip, a.ip, "as a member")
		advance(time.Second)
		a.wants("from the world")
	})
}
