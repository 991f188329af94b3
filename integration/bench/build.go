//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/adit-overlay/adit/integration/bench/contestants"
	"github.com/adit-overlay/adit/integration/internal/stage"
)

const benchPath = "github.com/adit-overlay/adit/integration/bench"

// build builds all programs into dir; those of the rivals, which may come over the network, only if wanted.
func build(ctx context.Context, dir string, rivals bool) error {
	source, err := stage.GoTool(ctx, "", "list", "-f", "{{.Dir}}", benchPath)
	if err != nil {
		return err
	}
	into := dir + string(filepath.Separator)
	if _, err := stage.GoTool(ctx, source, "build", "-o", into, "../../cmd/adit", "./internal/..."); err != nil {
		return err
	}
	if !rivals {
		return nil
	}
	sockets := filepath.Join(dir, contestants.WireguardSockets)
	_, err = stage.GoTool(ctx, filepath.Join(source, "rivals"), "build", "-o", into,
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
	source, err := stage.GoTool(ctx, "", "list", "-f", "{{.Dir}}", benchPath)
	if err != nil {
		return nil, err
	}
	out, err := stage.GoTool(ctx, filepath.Join(source, "rivals"), "list", "-m", "-f", "{{.Path}} {{.Version}}",
		"golang.zx2c4.com/wireguard", "github.com/slackhq/nebula", "github.com/armon/go-socks5")
	return strings.Split(out, "\n"), err
}
