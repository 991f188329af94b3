package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const page = "../docs/configuration.md"

// TestEveryKeyIsDocumented: each key has a row in a table, and each row is of a key.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]map[string]bool) // heading to its keys
	heading := ""
	word := regexp.MustCompile("`([a-z_]+)`")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "#"); ok {
			heading = strings.TrimSpace(strings.TrimLeft(rest, "#"))
			rows[heading] = make(map[string]bool)
		}
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range word.FindAllStringSubmatch(cells[1], -1) {
				rows[heading][m[1]] = true
			}
		}
	}
	for heading, keys := range map[string][]string{
		"A peer":           peerKeys,
		"A relay":          relayKeys,
		"advertise_limits": advertiseLimitsKeys,
		"relays":           relayEndpointKeys,
		"peers":            remoteKeys,
		"members":          memberKeys,
		"limits":           limitsKeys,
		"socks":            socksKeys,
		"udp":              udpKeys,
		"log":              logKeys,
	} {
		for _, key := range keys {
			if !rows[heading][key] {
				t.Errorf("%s: no row for %s", heading, key)
			}
			delete(rows[heading], key)
		}
		for key := range rows[heading] {
			t.Errorf("%s: a row for %s, which is no key", heading, key)
		}
	}
}

// TestBoundsNameKeysAndCounters: where the page says what others can cause, bounds are numbers or keys of the section that is
// linked, and what goes beyond is counted as status.md says.
func TestBoundsNameKeysAndCounters(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	_, bounds, _ := strings.Cut(string(text), "\n## What others can cause\n")
	bounds, _, _ = strings.Cut(bounds, "\n## ")
	sections := map[string][]string{"socks": socksKeys, "advertise_limits": advertiseLimitsKeys}
	word := regexp.MustCompile("`([a-z_.]+)`")
	section, keys, counters := "", make(map[string]bool), 0
	for line := range strings.Lines(bounds) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			continue
		}
		if _, link, ok := strings.Cut(cells[2], "](#"); ok {
			section, _, _ = strings.Cut(link, ")")
		}
		for _, m := range word.FindAllStringSubmatch(cells[2], -1) {
			keys[section+"."+m[1]] = true
			if !slices.Contains(sections[section], m[1]) {
				t.Errorf("%s is no key of %q", m[1], section)
			}
		}
		for _, m := range word.FindAllStringSubmatch(cells[4], -1) {
			counters++
			if !strings.Contains(string(status), "\n| `"+m[1]+"` |") {
				t.Errorf("status.md knows no counter %s", m[1])
			}
		}
	}
	for section, all := range sections {
		for _, key := range all {
			isBound := strings.HasPrefix(key, "max_") || strings.HasSuffix(key, "_timeout")
			if isBound && !keys[section+"."+key] {
				t.Errorf("%s.%s sets a bound that the page does not list", section, key)
			}
		}
	}
	if counters < 10 {
		t.Errorf("the page names %d counters", counters)
	}
}

// TestDocumentedFilesAreRight parses every YAML block of the page, and sees that those that
// promise every key keep it. None may be used as it is: it would hold a key that is public.
func TestDocumentedFilesAreRight(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	capitals := strings.NewReplacer(
		"RELAY-KEY", relayKey.Public().String(),
		"WEB-KEY", webKey.Public().String(),
		"LAPTOP-KEY", testKey(0x44).Public().String(),
	)
	anyKey := func(string) ([]byte, error) { return []byte(strings.Repeat("11", 32)), nil }
	blocks := regexp.MustCompile("(?s)(Every key:\n\n)?```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 4 {
		t.Fatalf("%d blocks of YAML", len(blocks))
	}
	whole := 0
	for _, b := range blocks {
		data := []byte(capitals.Replace(b[2]))
		f, err := Parse("block", data, anyKey)
		if err != nil {
			t.Errorf("%v\nin\n%s", err, b[2])
			continue
		}
		if b[1] == "" {
			continue
		}
		whole++
		root, _ := parseDocument(data)
		known := peerKeys
		if f.Relay != nil {
			known = relayKeys
		}
		for _, key := range known {
			if !(value{report: &report{}, node: root}).open().has(key) {
				t.Errorf("the block of every key lacks %s", key)
			}
		}
	}
	if whole != 2 {
		t.Errorf("%d blocks of every key, want one for a peer and one for a relay", whole)
	}
}
