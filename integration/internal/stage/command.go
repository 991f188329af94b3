//go:build linux

package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// GoTool runs the go command in a directory and returns what it printed.
func GoTool(ctx context.Context, dir string, args ...string) (string, error) {
	return Command(ctx, dir, "go", args...)
}

// Command runs a program in a directory, empty for the present one, and returns what it printed.
func Command(ctx context.Context, dir, name string, args ...string) (string, error) {
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
