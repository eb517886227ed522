// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"io"
	"log/slog"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// LogConfig is the log section of every role's configuration.
type LogConfig struct {
	Format string `yaml:"format" doc:"text for people, json for machines"`
	Level  string `yaml:"level" doc:"the least severe line that is written: debug, info, warn or error"`
}

// DefaultLog returns the configuration of a process that people watch.
func DefaultLog() LogConfig { return LogConfig{Format: "text", Level: "info"} }

// NewLogger returns a logger that writes one line per event to w. The error is
// Invalid and says what was expected.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	var level slog.Level
	switch strings.ToLower(c.Level) {
	case "debug":
		level = slog.LevelDebug
	case "info", "":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		return nil, errs.New(errs.Invalid, "log.level: expected debug, info, warn or error, found %q", c.Level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(c.Format) {
	case "text", "":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, errs.New(errs.Invalid, "log.format: expected text or json, found %q", c.Format)
}

// Discard returns a logger that writes nothing.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
