package config

import (
	"fmt"
	"log/slog"
)

// ParseLogLevel reads a level as the file and the command line write it.
func ParseLogLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("unknown log level %s: want debug, info, warn or error", quote(s))
}

// CheckLogFormat reports a format of logs that is not known.
func CheckLogFormat(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("unknown log format %s: want text or json", quote(s))
	}
	return nil
}
