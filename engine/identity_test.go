package engine

import (
	"encoding/hex"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// TestNoDirectoryMakesARemoteOfAKeyThatIsNoIdentity: a relay answers and offers with keys of low order and other forms of a key. The
// message is dropped and counted, and nobody is taken in; nor is one whom configuration names so.
func TestNoDirectoryMakesARemoteOfAKeyThatIsNoIdentity(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, relay := l.node("a"), l.node("relay")
		if _, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true}); err != nil {
			t.Fatal(err)
		}
		to := relay.knows(a, "")
		advance(time.Second)
		s := relay.sessionWith(a)
		low, _ := hex.DecodeString("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
		otherForm := relay.key.Public()
		otherForm[31] |= 0x80
		for _, key := range []wire.PublicKey{{}, {1}, wire.PublicKey(low), otherForm} {
			good := wire.PrivateKey{99, 31: 0x40}.Public()
			for _, m := range []wire.Control{
				wire.CircuitOffered{Circuit: 5, Remote: wire.Member{Key: good, Name: "x"}},
				wire.LookupReply{ID: 1, Status: wire.LookupFound, Member: wire.Member{Key: good, Name: "x"}},
			} {
				inner, err := m.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				offset := 1 + 8
				if _, ok := m.(wire.LookupReply); ok {
					offset = 1 + 4 + 1
				}
				copy(inner[offset:], key[:])
				counted := a.drops(DropControl)
				to.sendInnerBy(s, *to.path.Load(), inner, quiet, time.Now())
				synctest.Wait()
				if n := a.drops(DropControl) - counted; n != 1 {
					t.Errorf("%T with key %x: counted %d times", m, key, n)
				}
				if n := len(a.engine.Remotes()); n != 1 {
					t.Fatalf("%T with key %x: there are %d remotes", m, key, n)
				}
			}
			if _, err := a.engine.AddRemote(RemoteConfig{PublicKey: key}); err == nil {
				t.Errorf("key %x was taken as a remote's", key)
			}
		}
	})
}
