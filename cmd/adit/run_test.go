package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/adit-overlay/adit/config"
)

// command runs adit in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// TestWrongConfigurations gives the table of package config to the command: the same answers
// on stderr, nothing on stdout, exit code 2.
func TestWrongConfigurations(t *testing.T) {
	table, err := txtar.ParseFile("../../config/testdata/wrong.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	answers := make(map[string]string)
	for _, f := range table.Files {
		switch filepath.Ext(f.Name) {
		case ".err":
			answers[strings.TrimSuffix(f.Name, ".err")] = string(f.Data)
		case ".key":
			if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := 0
	for _, f := range table.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		count++
		if err := os.WriteFile("adit.yaml", f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := command(t, "check", "-c", "adit.yaml")
		if code != 2 || stdout != "" || stderr != answers[name] {
			t.Errorf("%s: exit code %d, stdout %q, stderr\n%swant\n%s", name, code, stdout, stderr, answers[name])
		}
	}
	if count < 40 {
		t.Errorf("%d wrong configurations, want at least 40", count)
	}
}

func TestExitCodes(t *testing.T) {
	wrong := config.Errors{{File: "adit.yaml", Line: 7, Path: "mtu", Msg: "too small"}}
	for name, tt := range map[string]struct {
		err   error
		begun bool
		code  int
		line  string
	}{
		"none":                     {nil, true, 0, ""},
		"failed":                   {errors.New("no route"), true, 1, "adit: no route\n"},
		"failed in several lines":  {errors.New("no route\nno path"), true, 1, "adit: no route no path\n"},
		"usage":                    {usagef("what?"), true, 2, "adit: what?\n"},
		"before the command began": {errors.New("unknown"), false, 2, "adit: unknown\n"},
		"configuration":            {wrong, true, 2, "adit.yaml:7: mtu: too small\n"},
	} {
		var stderr bytes.Buffer
		e := &env{stderr: &stderr, begun: tt.begun}
		if code := e.tell(tt.err); code != tt.code || stderr.String() != tt.line {
			t.Errorf("%s: exit code %d and %q, want %d and %q", name, code, stderr.String(), tt.code, tt.line)
		}
	}
}

// TestHelpExamplesAreRight: what help shows parses, once keys stand where it says so.
func TestHelpExamplesAreRight(t *testing.T) {
	const key = "ERERERERERERERERERERERERERERERERERERERERERE="
	read := func(string) ([]byte, error) { return []byte(key), nil }
	keys := strings.NewReplacer(
		"RELAY-KEY", "ew1H2TQn+DERYHgcfHM/2J+IlwrvSQ2KoO4ZpMuKGxQ=",
		"LAPTOP-KEY", "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA=",
		"WEB-KEY", "/y7kVgHsG2cxDHeQQEWFrmlzMe7hwfjPJBlzHB//Pms=",
	)
	if _, err := config.ParsePeer("peer", []byte(keys.Replace(leastPeer)), read); err != nil {
		t.Error(err)
	}
	if _, err := config.ParseRelay("relay", []byte(keys.Replace(leastRelay)), read); err != nil {
		t.Error(err)
	}
	if _, err := config.ParsePeer("peer", []byte(leastPeer), read); err == nil {
		t.Error("the example runs as it is: it holds a key that somebody may copy")
	}
}

// TestEveryCommandHelps: a short line, a use line, and no panic in any help.
func TestEveryCommandHelps(t *testing.T) {
	for _, cmd := range rootCommand(&env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}).Commands() {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short line %q", cmd.Name(), cmd.Short)
		}
		code, stdout, stderr := command(t, "help", cmd.Name())
		if code != 0 || stderr != "" || stdout == "" {
			t.Errorf("help %s: exit code %d, stderr %q", cmd.Name(), code, stderr)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 110 {
				t.Errorf("help %s has a line of %d characters: %s", cmd.Name(), len(line), line)
			}
		}
	}
}

func TestLogger(t *testing.T) {
	for name, tt := range map[string]struct {
		flags logFlags
		said  config.Log
		want  []string
		not   []string
	}{
		"nothing said": {logFlags{}, config.Log{}, []string{"level=INFO msg=b", "level=WARN msg=c"}, []string{"msg=a"}},
		"file":         {logFlags{}, config.Log{Level: slog.LevelDebug, Format: "json"}, []string{`"msg":"a"`}, nil},
		"flags win":    {logFlags{format: "text", level: "warn"}, config.Log{Level: slog.LevelDebug, Format: "json"}, []string{"msg=c"}, []string{"msg=b"}},
		"json by flag": {logFlags{format: "json"}, config.Log{Level: slog.LevelWarn}, []string{`"msg":"c"`}, []string{`"b"`}},
	} {
		var out bytes.Buffer
		log := tt.flags.logger(&out, tt.said)
		log.Debug("a")
		log.Info("b")
		log.Warn("c")
		for _, s := range tt.want {
			if !strings.Contains(out.String(), s) {
				t.Errorf("%s: no %s in\n%s", name, s, out.String())
			}
		}
		for _, s := range tt.not {
			if strings.Contains(out.String(), s) {
				t.Errorf("%s: %s in\n%s", name, s, out.String())
			}
		}
	}
}

func TestBuild(t *testing.T) {
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123abcd"},
			{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
			{Key: "vcs.modified", Value: "true"},
		},
	}
	if got, want := buildFrom(info).String(), "adit v1.2.3 (commit 0123abcd, 2026-01-02T03:04:05Z, modified) go"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
	if got, want := buildFrom(&debug.BuildInfo{}).String(), "adit (devel) go"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
}

// TestKeygenFailsWhole: where the key cannot be written, none is announced.
func TestKeygenFailsWhole(t *testing.T) {
	var stderr bytes.Buffer
	if code := run([]string{"keygen"}, strings.NewReader(""), failingWriter{}, &stderr); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if got, want := stderr.String(), "adit: writing the key: disk full\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }
