// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/tls"
	_ "embed"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
)

// serving is the listener of a Server. It is written by Start alone.
type serving struct {
	ln  net.Listener
	srv *http.Server
}

// Part returns the API's listener as a part of a process.
func (s *Server) Part() node.Part {
	return node.Part{Name: "api", Start: s.Start, Run: s.Run}
}

// Addr returns the address that is listened at, or "" before Start.
func (s *Server) Addr() string {
	if s.http.ln == nil {
		return ""
	}
	return s.http.ln.Addr().String()
}

// Start listens.
func (s *Server) Start(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return errs.New(errs.Unavailable, "API listener: %w", err)
	}
	if s.cfg.TLS != nil {
		conf := s.cfg.TLS.Clone()
		conf.NextProtos = []string{"h2", "http/1.1"}
		ln = tls.NewListener(ln, conf)
	}
	s.http = serving{ln: ln, srv: &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      handleTimeout + 30*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}}
	s.http.srv.RegisterOnShutdown(s.endStreams)
	return nil
}

// Run serves until ctx is done, and then lets requests end for 5 s, and has what
// goes on behind them stop. Meanwhile it keeps api_rate together with other processes.
func (s *Server) Run(ctx context.Context) error {
	defer s.background.end()
	if s.cfg.Bus != nil {
		var wg sync.WaitGroup
		defer wg.Wait()
		joint, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Go(func() { newJointly(s.rates, s.cfg.Bus, s.log, s.now).run(joint) })
	}
	served := make(chan error, 1)
	go func() { served <- s.http.srv.Serve(s.http.ln) }()
	select {
	case err := <-served:
		return errs.New(errs.Unavailable, "API listener: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.http.srv.Shutdown(grace); err != nil {
		s.log.Warn("API requests cut off", "error", err)
		_ = s.http.srv.Close() // nothing is left to be told
	}
	<-served
	return nil
}

//go:embed landing.html
var landingPage []byte

// landing serves one page, and nothing else.
func landing() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
		_, _ = w.Write(landingPage) // the client is gone if this fails
	})
}
