//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/adit-overlay/adit/integration/bench/contestants"
)

const benchPath = "github.com/adit-overlay/adit/integration/bench"

// build builds all programs into dir; those of the rivals, which may come over the network, only if wanted.
func build(ctx context.Context, dir string, rivals bool) error {
	source, err := goTool(ctx, "", "list", "-f", "{{.Dir}}", benchPath)
	if err != nil {
		return err
	}
	into := dir + string(filepath.Separator)
	if _, err := goTool(ctx, source, "build", "-o", into, "../../cmd/adit", "./internal/..."); err != nil {
		return err
	}
	if !rivals {
		return nil
	}
	sockets := filepath.Join(dir, contestants.WireguardSockets)
	_, err = goTool(ctx, filepath.Join(source, "rivals"), "build", "-o", into,
		"-ldflags", "-X golang.zx2c4.com/wireguard/ipc.socketDirectory="+sockets,
		"./wgstack", "golang.zx2c4.com/wireguard",
		"github.com/slackhq/nebula/cmd/nebula", "github.com/slackhq/nebula/cmd/nebula-cert")
	if err != nil {
		return fmt.Errorf("the rivals (leave them out by -contestants 'adit|tunnel|kernel'): %w", err)
	}
	return nil
}

// rivalVersions says what the rivals are, as their module has it.
func rivalVersions(ctx context.Context) ([]string, error) {
	source, err := goTool(ctx, "", "list", "-f", "{{.Dir}}", benchPath)
	if err != nil {
		return nil, err
	}
	out, err := goTool(ctx, filepath.Join(source, "rivals"), "list", "-m", "-f", "{{.Path}} {{.Version}}",
		"golang.zx2c4.com/wireguard", "github.com/slackhq/nebula", "github.com/armon/go-socks5")
	return strings.Split(out, "\n"), err
}

// goTool runs the go command in a directory and returns what it printed.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	return command(ctx, dir, "go", args...)
}

// command runs a program in a directory, empty for the present one, and returns what it printed.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	// The nested module is not part of a workspace that may be around it. Programs are static, as containers want them.
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
