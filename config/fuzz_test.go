package config

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

func FuzzParsePeer(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePeer("adit.yaml", data, testKeys(t))
		if (p == nil) == (err == nil) {
			t.Fatalf("peer %v and error %v", p, err)
		}
		checkErrors(t, err)
	})
}

func FuzzParseRelay(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRelay("adit.yaml", data, testKeys(t))
		if (r == nil) == (err == nil) {
			t.Fatalf("relay %v and error %v", r, err)
		}
		checkErrors(t, err)
	})
}

func addSeeds(f *testing.F) {
	table, err := txtar.ParseFile(wrongTable)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range table.Files {
		if strings.HasSuffix(file.Name, ".yaml") {
			f.Add(file.Data)
		}
	}
	f.Add([]byte(leastPeer))
}

var oneErrorLine = regexp.MustCompile(`^adit\.yaml(:[1-9][0-9]*)?: \P{Cc}+$`)

// checkErrors: each error is one line with a position inside the file. Only the two about the
// size of the whole have none.
func checkErrors(t *testing.T, err error) {
	if err == nil {
		return
	}
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("not Errors: %v", err)
	}
	for _, e := range all {
		if !oneErrorLine.MatchString(e.Error()) {
			t.Errorf("not one line: %q", e.Error())
		}
		if e.Line == 0 && !strings.Contains(e.Msg, "large") {
			t.Errorf("no line: %v", e)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n > maxPrinted {
		t.Errorf("%d lines", n+1)
	}
}
