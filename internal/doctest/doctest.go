// Package doctest holds documents to what the code does.
package doctest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// WantDefaults fails the test unless the rows of a section of docs/configuration.md tell these defaults of these keys.
func WantDefaults(t *testing.T, section string, defaults map[string]any) {
	t.Helper()
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(string(page), "\n### "+section+"\n")
	rows, _, _ = strings.Cut(rows, "\n### ")
	for key, value := range defaults {
		want := strings.Replace(fmt.Sprint(value), "m0s", "m", 1) // durations as people write them
		if row := regexp.MustCompile("(?m)^\\| `" + key + "` \\|[^|]*\\| `?" + want + "`? \\|"); !row.MatchString(rows) {
			t.Errorf("no row of %s tells that %s is %s", section, key, want)
		}
	}
}
