package config

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what the package says now into testdata/wrong.txtar; read the difference")

const wrongTable = "testdata/wrong.txtar"

// TestWrong runs the table of wrong configurations: every answer is compared whole.
func TestWrong(t *testing.T) {
	table, err := txtar.ParseFile(wrongTable)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, f := range table.Files {
		files[f.Name] = f.Data
	}
	count := 0
	for i, f := range table.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		count++
		t.Run(name, func(t *testing.T) {
			_, err := Parse("adit.yaml", f.Data, keysFrom(files))
			if err == nil {
				t.Fatal("taken for right")
			}
			got := err.Error() + "\n"
			if *update {
				table.Files[i+1].Data = []byte(got)
				return
			}
			if want := string(files[name+".err"]); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if secret := strings.TrimSpace(string(files["self.key"])); strings.Contains(got, secret) {
				t.Error("the answer tells the private key")
			}
		})
	}
	if count < 60 {
		t.Errorf("%d wrong configurations, want at least 60", count)
	}
	if *update {
		if err := os.WriteFile(wrongTable, txtar.Format(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// keysFrom serves key files from memory, by the last element of their path.
func keysFrom(files map[string][]byte) ReadKeys {
	return func(path string) ([]byte, error) {
		data, ok := files[filepath.Base(path)]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return data, nil
	}
}
