package peer_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/internal/citest"
	"github.com/adit-overlay/adit/wire"
)

// Two programs of another module, built without a network against this one, meet on loopback.
func TestProgramsOfAnotherModule(t *testing.T) {
	if testing.Short() {
		t.Skip("It builds two programs.")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		citest.Skipf(t, "there is no go tool to build programs with")
	}
	dir := t.TempDir()
	writeModule(t, dir)
	build := exec.CommandContext(t.Context(), goTool, "build", "-o", filepath.Join(dir, "bin")+string(filepath.Separator), "./serve", "./fetch")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOWORK=off", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	webKey, laptopKey := newKey(t), newKey(t)
	writeKey(t, filepath.Join(dir, "web.key"), webKey)
	writeKey(t, filepath.Join(dir, "laptop.key"), laptopKey)
	write(t, filepath.Join(dir, "web.yaml"), fmt.Sprintf(`
mode: netstack
private_key_file: web.key
addresses: [10.9.0.3/24]
listen: "127.0.0.1:0"
peers:
  - {name: laptop, public_key: "%v", allowed_ips: [10.9.0.2/32]}
`, laptopKey.Public()))

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var complaints bytes.Buffer
	serve := exec.CommandContext(ctx, filepath.Join(dir, "bin", "serve"), filepath.Join(dir, "web.yaml"))
	serve.Stderr = &complaints
	stdin, err := serve.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	endpoint, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stdin.Close()
		t.Fatalf("serve said nothing: %v, %v\n%s", err, serve.Wait(), complaints.Bytes())
	}

	write(t, filepath.Join(dir, "laptop.yaml"), fmt.Sprintf(`
mode: netstack
private_key_file: laptop.key
addresses: [10.9.0.2/24]
listen: "127.0.0.1:0"
peers:
  - {name: web, public_key: "%v", endpoint: "%s", allowed_ips: [10.9.0.3/32]}
`, webKey.Public(), strings.TrimSpace(endpoint)))
	fetch := exec.CommandContext(ctx, filepath.Join(dir, "bin", "fetch"), "http://web.adit/")
	fetch.Env = append(os.Environ(), "ADIT_CONFIG="+filepath.Join(dir, "laptop.yaml"))
	out, err := fetch.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "hello, 10.9.0.2:") {
		t.Errorf("%v: %s", err, out)
	}
	stdin.Close()
	io.Copy(io.Discard, stdout)
	if err := serve.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, complaints.Bytes())
	}
}

// writeModule copies the programs of testdata into dir, as a module that requires this one from where it is
// and otherwise what this one requires.
func writeModule(t *testing.T, dir string) {
	t.Helper()
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	mod := read(t, filepath.Join(here, "go.mod"))
	const this = "github.com/adit-overlay/adit"
	if !strings.Contains(mod, "module "+this+"\n") {
		t.Fatalf("go.mod names another module than %s", this)
	}
	mod = strings.Replace(mod, "module "+this+"\n", "module example.com/program\n", 1)
	mod += fmt.Sprintf("\nrequire %[1]s v0.0.0\n\nreplace %[1]s => %[2]q\n", this, here)
	write(t, filepath.Join(dir, "go.mod"), mod)
	write(t, filepath.Join(dir, "go.sum"), read(t, filepath.Join(here, "go.sum")))
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "program"))); err != nil {
		t.Fatal(err)
	}
}

func writeKey(t *testing.T, path string, key wire.PrivateKey) {
	t.Helper()
	pem, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(pem))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
