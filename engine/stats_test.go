package engine

import (
	"bytes"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestEveryDropHasANameAndAMeaning(t *testing.T) {
	word := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := make(map[string]bool)
	for d := range Drops() {
		if name := d.String(); !word.MatchString(name) || seen[name] {
			t.Errorf("drop %d is called %q, as another or badly", d, name)
		}
		seen[d.String()] = true
		if d.Meaning() == "" {
			t.Errorf("%v has no meaning", d)
		}
	}
	if len(seen) != int(dropReasons) {
		t.Errorf("%d of %d reasons", len(seen), dropReasons)
	}
}

// TestChangesOfPathDoNotFillTheLog has a remote's packets come from two places by turns, as an attacker who repeats them, or a
// second process with its key, can bring about with every packet.
func TestChangesOfPathDoNotFillTheLog(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		var log bytes.Buffer
		a, b := l.plan("a"), l.node("b")
		a.log = slog.New(slog.NewTextHandler(&log, nil))
		a.start()
		a.knows(b, at(b))
		b.knows(a, "")
		a.send(b, "hello")
		b.wants("hello")
		const changes, every = 600, 100 * time.Millisecond
		for i := range changes {
			b.wire.Rebind(netip.AddrPortFrom(b.addr.Addr(), uint16(6000+i%2)))
			b.send(a, "here")
			advance(every)
		}
		lines := strings.Count(log.String(), "msg=path ")
		if most := int(changes*every/logPathEvery) + 1; lines == 0 || lines > most {
			t.Errorf("%d lines, want 1 to %d:\n%s", lines, most, log.String())
		}
		if !strings.Contains(log.String(), "changes=100") {
			t.Errorf("the lines do not tell how many they stand for:\n%s", log.String())
		}
	})
}
