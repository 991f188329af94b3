package adit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTestsNamedInDocumentsExist: the documents say which test holds a promise, as `folder.TestName`. A test that is
// renamed takes its promise along.
func TestTestsNamedInDocumentsExist(t *testing.T) {
	exist := namesOfTests(t)
	named := regexp.MustCompile("`([a-z0-9_/]+)\\.((?:Test|Fuzz|Benchmark|Example)\\w*)`")
	for _, doc := range []struct {
		path  string
		least int // tests that it names
	}{
		{"docs/testing.md", 100},
		{"docs/protocol.md", 40},
		{"docs/architecture.md", 10},
		{"SECURITY.md", 0},
	} {
		text, err := os.ReadFile(doc.path)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for i, line := range strings.Split(string(text), "\n") {
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				seen++
				if folder, name := m[1], m[2]; !exist[folder+"."+name] {
					t.Errorf("%s:%d: there is no %s in %s", doc.path, i+1, name, folder)
				}
			}
		}
		if seen < doc.least {
			t.Errorf("%s names %d tests, want %d", doc.path, seen, doc.least)
		}
	}
}

// namesOfTests returns the tests of all folders, each as folder.TestName. Those of the folder at the top are of adit.
func namesOfTests(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		if folder == "." {
			folder = "adit"
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[folder+"."+fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestDocumentedVariablesAreHeeded: a variable that a document promises is one that the code asks for.
func TestDocumentedVariablesAreHeeded(t *testing.T) {
	promised := regexp.MustCompile(`\$\{?([A-Z][A-Z0-9_]{2,})`)
	heeded := make(map[string]bool)
	asks := regexp.MustCompile(`"([A-Z][A-Z0-9_]{2,})"`)
	var documents []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case strings.HasSuffix(path, ".md"):
			documents = append(documents, path)
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !strings.Contains(string(text), "os.Getenv(") {
				return nil
			}
			for _, m := range asks.FindAllStringSubmatch(string(text), -1) {
				heeded[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range promised.FindAllStringSubmatch(string(text), -1) {
			if found = true; !heeded[m[1]] {
				t.Errorf("%s promises $%s, which nothing asks for", path, m[1])
			}
		}
	}
	if !found {
		t.Error("no document names a variable: this test shows nothing")
	}
}

// TestDocumentsHoldNoKey: an example that runs is an example that somebody runs, with a key all the world has.
func TestDocumentsHoldNoKey(t *testing.T) {
	key := regexp.MustCompile(`\b[0-9a-fA-F]{64}\b|[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|BEGIN [A-Z ]*PRIVATE KEY`)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if m := key.Find(text); m != nil {
				t.Errorf("%s holds the key %s: write a word for it", path, m)
			}
		}
	}
}
