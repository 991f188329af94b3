package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestDocumentRefused holds the flaws that cannot be shown in a text file.
func TestDocumentRefused(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"too large":         {strings.Repeat("#", maxFile+1), "f: larger than 4194304 bytes"},
		"not UTF-8":         {"name: laptop\nmode: \xff\n", "f:2: not valid UTF-8: save the file as UTF-8"},
		"cut UTF-8":         {"name: laptop\xc3", "f:1: not valid UTF-8: save the file as UTF-8"},
		"UTF-16":            {"\xff\xfen\x00a\x00", "f:1: not valid UTF-8: save the file as UTF-8"},
		"NUL":               {"name: lap\x00top", "f:1: a control character (U+0000): remove it"},
		"escape":            {"\nname: \x1b[31mred", "f:2: a control character (U+001B): remove it"},
		"lone CR":           {"name: a\rmode: tun", "f:1: a control character (U+000D): remove it"},
		"line separator":    {"name: a\u2028mode: tun", "f:1: a control character (U+2028): remove it"},
		"many keys":         {keyLines("", 201), "f:201: more than 200 keys in one place"},
		"many deep keys":    {"peers:\n  - name: a\n" + keyLines("    ", 200), "f:202: more than 200 keys in one place"},
		"many empty":        {"peers:\n" + strings.Repeat("-\n", 1001), "f:1002: more than 1000 values are empty"},
		"many empty flow":   {"peers: [" + strings.Repeat("{a: },", 1001) + "]", "f:1: more than 1000 values are empty"},
		"many empty keys":   {"peers:\n" + strings.Repeat("- name:\n", 1001), "f:1002: more than 1000 values are empty"},
		"deep flow":         {"a: " + strings.Repeat("[", 100000), "f:1: nested more than 20 deep"},
		"deep flow mapping": {strings.Repeat("{a: ", 100000), "f:1: nested more than 20 deep"},
		"deep list":         {strings.Repeat("- ", 100000), "f:1: nested more than 20 deep"},
		"deep block":        {staircase(21), "f:21: nested more than 20 deep"},
		"many documents":    {leastPeer + strings.Repeat("--- a\n", 100000), "f:5: a second document: want one document a file"},
		"many marks":        {strings.Repeat("---\n", 100000), "f:2: a second document: want one document a file"},
		"many ends":         {strings.Repeat("...\n", 100000), "f:2: a second document: want one document a file"},
		"many bare keys":    {"peers: {" + strings.Repeat("a, ", 100000) + "}", "f:1: a key without a value: want {key: value}"},
		"alias bomb": {
			"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
			"f:1: anchors, aliases and merge keys are not supported: write the values out",
		},
		"tab":         {"peers:\n# remark\n\t\n", "f:3: a tab in the indentation: YAML wants spaces"},
		"many tokens": {"a: [" + strings.Repeat("b,", maxTokens/2) + "]", "f: more than 1048576 words and signs: too large for a configuration"},
	} {
		_, err := Parse("f", []byte(tt.text), nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v\nwant %s", name, err, tt.want)
		}
	}
}

func keyLines(indent string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sk%d: 1\n", indent, i)
	}
	return b.String()
}

func staircase(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

// TestManyMembers is about the bounds: they must not meet a relay as large as any.
func TestManyMembers(t *testing.T) {
	for _, form := range []string{
		"  - {name: m%d, public_key: %s, allowed_ips: [10.%d.%d.%d/32]}\n",
		"  - name: m%d\n    public_key: %s\n    allowed_ips:\n    - 10.%d.%d.%d/32\n",
	} {
		const n = 3000
		var b strings.Builder
		b.WriteString("private_key_file: self.key\nlisten: \":5040\"\nmembers:\n")
		for i := range n {
			k := testKey(0)
			k[1], k[2], k[31] = byte(i), byte(i>>8), 0x40
			fmt.Fprintf(&b, form, i, k.Public(), i>>16, i>>8&255, i&255)
		}
		r, err := ParseRelay("relay.yaml", []byte(b.String()), testKeys(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Members) != n {
			t.Errorf("%d members, want %d", len(r.Members), n)
		}
	}
}

// TestLines puts an error behind what has confused line counts: every kind of value that
// spans lines.
func TestLines(t *testing.T) {
	for name, before := range map[string]string{
		"comments":        "# one\n\n  # two\n\n",
		"block text":      "name: |\n  laptop\n  and more\n",
		"folded text":     "name: >-\n  laptop\n\n  and more\n",
		"long plain":      "name: laptop\n  and more\n",
		"long quoted":     "name: \"laptop\n  and\n\n  more\"\n",
		"long single":     "name: 'laptop\n  and more'\n",
		"flow over lines": "addresses: [\n  10.9.0.2/24, # mine\n\n  10.9.1.2/24\n]\n",
		"map over lines":  "log: {\n  level: info,\n  format: text\n}\n",
		"block list":      "addresses:\n\n- 10.9.0.2/24\n\n# remark\n- 10.9.1.2/24\n",
		"comment behind":  "name: laptop # mine\nmtu: 1400 # more\n",
		"CRLF":            "name: laptop\r\n\r\nmtu: 1400\r\n",
	} {
		text := before + "wrong: 1\n"
		line := strings.Count(text, "\n")
		_, err := ParsePeer("f", []byte(text), testKeys(t))
		want := fmt.Sprintf("f:%d: wrong: unknown key", line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got\n%v\nwant %s", name, err, want)
		}
	}
}

func TestErrorsAreSingleLines(t *testing.T) {
	_, err := Parse("a\nb.yaml", []byte("name: \"x\\ny\"\n\"na\\nme\": 1\n"), nil)
	lines := strings.Split(err.Error(), "\n")
	for _, want := range []string{
		`"a\nb.yaml":1: name: "x\ny" cannot be a name: want at most 63 of a-z, 0-9 and -, with no - at either end`,
		`"a\nb.yaml":2: "na\nme": unknown key: did you mean name?`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("got\n%v\nwant the line\n%s", err, want)
		}
	}
}

func TestErrorsAreCounted(t *testing.T) {
	for n, want := range map[int]string{10: "f:10: x: y", 11: "f: and 1 more", maxCollected: "f: and at least 990 more", 2 * maxCollected: "f: and at least 990 more"} {
		r := report{file: "f"}
		for i := range n {
			r.add(n-i, "x", "y")
		}
		lines := strings.Split(r.err().Error(), "\n")
		if n <= maxCollected && lines[0] != "f:1: x: y" {
			t.Errorf("%d errors begin with %s", n, lines[0])
		}
		if last := lines[len(lines)-1]; last != want {
			t.Errorf("%d errors end with %q, want %q", n, last, want)
		}
	}
}

// TestDistance compares the table of distance with its definition.
func TestDistance(t *testing.T) {
	words := []string{"", "a", "ab", "ba", "abc", "bca", "listen", "lisen", "litsen", "silent", "mtu", "mut", "name", "endpoint", "endpiont"}
	for _, a := range words {
		for _, b := range words {
			if got, want := distance(a, b), slowDistance(a, b); got != want {
				t.Errorf("%q to %q: %d, want %d", a, b, got, want)
			}
		}
	}
	long := strings.Repeat("a", 100)
	if d := distance(long, "a"); d != 100 {
		t.Errorf("a long word is %d far", d)
	}
}

func slowDistance(a, b string) int {
	if len(a) == 0 || len(b) == 0 {
		return len(a) + len(b)
	}
	x, y := a[:len(a)-1], b[:len(b)-1]
	if a[len(x)] == b[len(y)] && (len(a) < 2 || len(b) < 2) {
		return min(slowDistance(x, y), slowDistance(x, b)+1, slowDistance(a, y)+1)
	}
	change := 1
	if a[len(x)] == b[len(y)] {
		change = 0
	}
	d := min(slowDistance(x, b)+1, slowDistance(a, y)+1, slowDistance(x, y)+change)
	if len(a) > 1 && len(b) > 1 && a[len(a)-1] == b[len(b)-2] && a[len(a)-2] == b[len(b)-1] {
		d = min(d, slowDistance(a[:len(a)-2], b[:len(b)-2])+1)
	}
	return d
}
