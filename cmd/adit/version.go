package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which adit this is",
		Long:  "Print the version, the commit it was built from if that is known, and the Go version and platform.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.stdout, thisBuild())
			return err
		},
	}
}

// build is what the Go linker knows about this program.
type build struct {
	module   string // its version
	commit   string // empty: not built in a checkout
	time     string
	modified bool
}

func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{module: "(unknown)"}
	}
	return buildFrom(info)
}

func buildFrom(info *debug.BuildInfo) build {
	b := build{module: info.Main.Version}
	if b.module == "" {
		b.module = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.time":
			b.time = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b
}

// String returns "adit v1.2.3 (commit 0123abcd, 2026-01-02T03:04:05Z, modified) go1.26.3 linux/amd64".
func (b build) String() string {
	s := "adit " + b.module
	if b.commit != "" {
		s += " (commit " + b.commit
		if b.time != "" {
			s += ", " + b.time
		}
		if b.modified {
			s += ", modified"
		}
		s += ")"
	}
	return fmt.Sprintf("%s %s %s/%s", s, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
