// SPDX-License-Identifier: Apache-2.0

// Package embed is a NATS server with JetStream inside this process: the bus of
// a product that runs on one machine, or one of the servers of a cluster. By
// default it has no socket. The server owns its goroutines and its folder; nobody
// else may use the folder meanwhile.
package embed

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
)

// Config says how the server runs.
type Config struct {
	// Dir is where JetStream keeps everything; it is made if missing.
	Dir string
	// Name is the server's; empty means "manor".
	Name string
	// Listen is a host:port for other processes; empty means no socket at
	// all.
	Listen string
	// Token is what other processes must show, if not empty.
	Token string
	// NoSync leaves the time of writing to disk to the server (2 min). The
	// zero value syncs before each acknowledgement, so that neither kill -9 nor
	// a power cut loses what was acknowledged; a write then costs one fsync.
	NoSync bool
	// Cluster is the name of the cluster that the server is one of; empty means that
	// it is on its own. A folder stays of the kind that it was first used for: a
	// cluster does not see what a server on its own kept.
	Cluster string
	// ClusterListen is a host:port for the other servers of the cluster.
	ClusterListen string
	// Routes are the host:port of ClusterListen of every server of the cluster, with
	// or without this one's: JetStream expects that many for its first majority.
	// The servers show each other Token.
	Routes []string
	Log    *slog.Logger
}

// Server is a running NATS server.
type Server struct {
	cfg Config
	srv *server.Server
}

// readyTimeout bounds the start: JetStream reads its folder in it.
const readyTimeout = 30 * time.Second

// Start starts the server and returns when it takes connections. One of a cluster
// can do nothing yet until most of the others are there: nats.Bus.Ready says when.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errs.New(errs.Invalid, "embedded bus: expected a folder")
	}
	if cfg.Name == "" {
		cfg.Name = "manor"
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.New(errs.Unavailable, "embedded bus: %w", err)
	}
	opts := &server.Options{
		ServerName:         cfg.Name,
		JetStream:          true,
		StoreDir:           filepath.Clean(cfg.Dir),
		JetStreamMaxMemory: 64 << 20,
		SyncAlways:         !cfg.NoSync,
		DontListen:         cfg.Listen == "",
		NoSigs:             true,
		// The default of 1 MiB is larger than any value of ours.
		MaxPayload:    1 << 20,
		Authorization: cfg.Token,
	}
	if cfg.Listen != "" {
		var err error
		if opts.Host, opts.Port, err = splitAddress(cfg.Listen); err != nil {
			return nil, err
		}
	}
	if cfg.Cluster != "" {
		if err := cfg.cluster(opts); err != nil {
			return nil, err
		}
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "embedded bus: %w", err)
	}
	srv.SetLoggerV2(logger{cfg.Log}, false, false, false)
	srv.Start()
	s := &Server{cfg: cfg, srv: srv}
	for deadline := time.Now().Add(readyTimeout); !srv.ReadyForConnections(50 * time.Millisecond); {
		if ctx.Err() != nil || !srv.Running() || time.Now().After(deadline) {
			s.Shutdown()
			return nil, errs.New(errs.Unavailable, "embedded bus: not ready (is its folder %s or one of its addresses %s %s in use?)", cfg.Dir, cfg.Listen, cfg.ClusterListen)
		}
	}
	if !srv.JetStreamEnabled() {
		s.Shutdown()
		return nil, errs.New(errs.Unavailable, "embedded bus: JetStream cannot use the folder %s", cfg.Dir)
	}
	return s, nil
}

// splitAddress takes host:port apart; port 0 is any.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errs.New(errs.Invalid, "embedded bus: expected host:port, found %q", address)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, errs.New(errs.Invalid, "embedded bus: expected a port of 0 to 65535, found %q", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// Bus returns a new connection to the server, without a socket. Close it before
// Shutdown.
func (s *Server) Bus(name string) (*nats.Bus, error) {
	return nats.Connect(nats.Config{Name: name, Token: s.cfg.Token, InProcess: s.srv, Log: s.cfg.Log})
}

// URL is where other processes connect; empty without a socket.
func (s *Server) URL() string {
	if s.cfg.Listen == "" {
		return ""
	}
	return s.srv.ClientURL()
}

// Check is a health check: nil while the server runs.
func (s *Server) Check(context.Context) error {
	if !s.srv.Running() {
		return errs.New(errs.Unavailable, "the NATS server does not run")
	}
	return nil
}

// Shutdown ends the server in order and returns when it has.
func (s *Server) Shutdown() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// logger writes the server's lines into ours: what it notes in passing is for
// debugging here.
type logger struct{ log *slog.Logger }

func (l logger) line(level slog.Level, format string, v []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "NATS server", "line", fmt.Sprintf(format, v...))
	}
}

func (l logger) Noticef(format string, v ...any) { l.line(slog.LevelDebug, format, v) }
func (l logger) Fatalf(format string, v ...any)  { l.line(slog.LevelError, format, v) }
func (l logger) Debugf(format string, v ...any)  { l.line(slog.LevelDebug, format, v) }
func (l logger) Tracef(format string, v ...any)  { l.line(slog.LevelDebug, format, v) }

// Warnf says at a lower level what those that start together all say at first.
func (l logger) Warnf(format string, v ...any) {
	level := slog.LevelWarn
	if text := fmt.Sprintf(format, v...); text == "Waiting for routing to be established..." || text == "JetStream has not established contact with a meta leader" {
		level = slog.LevelInfo
	}
	l.line(level, format, v)
}

// Errorf says at a lower level that another server of the cluster is not there: it is
// tried again each second, and those that start together meet nobody at first.
func (l logger) Errorf(format string, v ...any) {
	level := slog.LevelError
	if strings.HasPrefix(format, "Error trying to connect to route") {
		level = slog.LevelInfo
	}
	l.line(level, format, v)
}
