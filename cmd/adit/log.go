package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/config"
)

// logFlags are --log-format and --log-level: empty where the configuration decides.
type logFlags struct {
	format string
	level  string
}

func (f *logFlags) register(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&f.format, "log-format", "", "`FORMAT` of logs: text or json (default: as configured, or text)")
	flags.StringVar(&f.level, "log-level", "", "least `LEVEL` logged: debug, info, warn, error (default: as configured, or info)")
	root.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *logFlags) check() error {
	if f.format != "" {
		if err := config.CheckLogFormat(f.format); err != nil {
			return usagef("--log-format: %w", err)
		}
	}
	if f.level != "" {
		if _, err := config.ParseLogLevel(f.level); err != nil {
			return usagef("--log-level: %w", err)
		}
	}
	return nil
}

// logger logs to w as the flags say and, where they are silent, as the configuration says.
func (f *logFlags) logger(w io.Writer, said config.Log) *slog.Logger {
	if f.format != "" {
		said.Format = f.format
	}
	if f.level != "" {
		said.Level, _ = config.ParseLogLevel(f.level) // good: check has seen it
	}
	opts := &slog.HandlerOptions{Level: said.Level}
	if said.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
