// Package adit_test holds the house to its plan: which room may call which.
package adit_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/adit-overlay/adit/"

// A layer is a folder and what it may import of ours, "*" for anything.
type layer struct {
	folder string
	may    []string
	why    string
}

// layers lists, from the bottom up, what each folder may import of ours. The caller is above, what it
// calls is below; a folder that is not listed may not exist.
var layers = []layer{
	{"packet", nil, "everything else handles packets"},
	{"packet/packettest", nil, "packets nobody should send, for the tests of whatever parses packets"},
	{"internal/citest", nil, "what may be skipped, for tests"},
	{"internal/doctest", nil, "that documents say what the code does, for tests"},
	{"internal/heaptest", nil, "how much memory is in use, for tests that bound it"},
	{"wire", nil, "the protocol is pure: bytes in, bytes and decisions out"},
	{"underlay", []string{"packet"}, "a carrier moves sealed datagrams, whatever is in them"},
	{"underlay/underlaytest", []string{"internal/citest", "underlay"}, "one suite for all carriers"},
	{"tun", []string{"packet"}, "a device knows no overlay"},
	{"netstack", []string{"packet"}, "a device knows no overlay; the engine uses it, it does not use the engine"},
	{"engine", []string{"wire", "underlay", "packet"}, "it defines the device it consumes, so it needs no device's package"},
	{"relay", []string{"engine", "wire", "underlay", "packet"}, "a relay that is a peer is given its device"},
	{"config", []string{"wire"}, "reading a file opens no socket and no device"},
	{"peer", []string{"config", "engine", "netstack", "relay", "tun", "underlay", "wire", "packet"}, "it puts engine and device together"},
	{"socks", nil, "a proxy over a dial function knows no overlay"},
	{"control", nil, "a local API over two functions knows no overlay"},
	{"cmd/adit", []string{"config", "control", "peer", "socks", "wire"}, "flags and words for people; what they do is below"},
	{"integration", []string{"*"}, "it tests all of it together"},
}

// bans are packages of others, by the start of their path, that some folder must do without.
var bans = []struct {
	folder, imports, why string
}{
	{"wire", "net/http", "the protocol opens nothing"},
	{"wire", "os", "the protocol opens nothing"},
	{"packet", "net/http", "packets are bytes"},
	{"packet", "gvisor.dev/gvisor/pkg/tcpip/stack", "only netstack knows gVisor's stack; the checksum routines are free"},
	{"engine", "gvisor.dev", "only netstack knows gVisor"},
	{"engine", "golang.org/x/sys", "system calls belong to carriers and devices"},
	{"engine", "github.com/flynn/noise", "the handshake is wire's"},
	{"engine", "crypto/aes", "ciphers are wire's"},
	{"relay", "gvisor.dev", "only netstack knows gVisor"},
	{"relay", "crypto/cipher", "a relay seals and opens nothing"},
	{"relay", "github.com/flynn/noise", "a relay's handshakes are its engine's"},
	{"peer", "github.com/spf13", "the command line is the command's"},
	{"peer", "github.com/vishvananda", "addresses and routes are tun's"},
	{"socks", "gvisor.dev", "a proxy knows no stack"},
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		seen[folder] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			check(t, path, folder, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if !seen[l.folder] && l.folder != "integration" {
			t.Errorf("%s is in the table and has no code", l.folder)
		}
	}
}

func check(t *testing.T, path, folder, imported string) {
	for _, b := range bans {
		if (folder == b.folder || strings.HasPrefix(folder, b.folder+"/")) && (imported == b.imports || strings.HasPrefix(imported, b.imports+"/")) {
			t.Errorf("%s imports %s: %s", path, imported, b.why)
		}
	}
	i := slices.IndexFunc(layers, func(l layer) bool {
		return folder == l.folder || l.folder == "integration" && strings.HasPrefix(folder, "integration/")
	})
	if i < 0 {
		t.Errorf("%s: the folder %s is not in the table", path, folder)
		return
	}
	ours, ok := strings.CutPrefix(imported, module)
	if !ok || slices.Contains(layers[i].may, "*") || slices.Contains(layers[i].may, ours) {
		return
	}
	if strings.HasPrefix(ours, folder+"/") { // a part of itself
		return
	}
	t.Errorf("%s imports %s, and %s may import only %v: %s", path, ours, folder, layers[i].may, layers[i].why)
}
