// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/manormq/manor/infra/errs"
)

// OperatorConfig is the operator section of every role's configuration.
type OperatorConfig struct {
	Listen string `yaml:"listen" doc:"address of the operator listener (metrics, health, status, profiles); empty turns it off"`
	Public bool   `yaml:"public" doc:"allow an address that is not loopback; whoever reaches it can read status, sessions and profiles"`
}

// Status is what /process.json says about a process, and /status.json unless a Page is
// there. Details come from its
// parts.
type Status struct {
	Name      string         `json:"name"`
	Role      string         `json:"role"`
	Version   string         `json:"version"`
	Pid       int            `json:"pid"`
	StartedAt time.Time      `json:"started_at"`
	Uptime    float64        `json:"uptime_seconds"`
	Health    Report         `json:"health"`
	Details   map[string]any `json:"details,omitempty"`
}

// Operator is the HTTP listener for the people and machines that run the
// process. Register everything before it starts.
type Operator struct {
	cfg     OperatorConfig
	log     *slog.Logger
	health  *Health
	router  *chi.Mux
	status  Status
	details []detail
	// page and pageStatus take the place of the process's own; see Page.
	page       []byte
	pageStatus func(context.Context) any
	ln         net.Listener
	srv        *http.Server
}

type detail struct {
	name string
	f    func() any
}

// NewOperator returns the listener of a process of that name and role, with
// its routes; it does not listen yet.
func NewOperator(cfg OperatorConfig, name, role string, log *slog.Logger, reg *prometheus.Registry, health *Health) *Operator {
	o := &Operator{cfg: cfg, log: log, health: health, router: chi.NewRouter()}
	o.status = Status{Name: name, Role: role, Version: Version(), Pid: os.Getpid()}
	r := o.router
	r.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry: reg,
		ErrorLog: scrapeLog{log},
		// One broken collector must not hide the other metrics.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	r.Get("/health", health.serveAll)
	r.Get("/health/ping", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Report{Status: "OK"})
	})
	r.Get("/health/{check}", health.serveOne)
	r.Get("/status.json", func(w http.ResponseWriter, req *http.Request) {
		if o.pageStatus != nil {
			writeJSON(w, http.StatusOK, o.pageStatus(req.Context()))
			return
		}
		writeJSON(w, http.StatusOK, o.Status(req.Context()))
	})
	r.Get("/process.json", func(w http.ResponseWriter, req *http.Request) {
		writeJSON(w, http.StatusOK, o.Status(req.Context()))
	})
	r.Get("/status", func(w http.ResponseWriter, req *http.Request) {
		if o.page == nil {
			o.serveStatus(w, req)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:")
		_, _ = w.Write(o.page) // the client is gone if this fails
	})
	r.HandleFunc("/debug/pprof/*", pprof.Index)
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return o
}

// scrapeLog hears of what hinders a scrape. A client that went away hinders
// itself alone.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	for _, a := range v {
		if err, ok := a.(error); ok && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			l.log.Debug("a scrape of the metrics was given up by its client", "error", err)
			return
		}
	}
	l.log.Warn("metrics", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Mount adds a handler for everything below path, such as "/api/v1".
func (o *Operator) Mount(path string, h http.Handler) { o.router.Mount(path, h) }

// Page has /status serve page, an HTML file that needs nothing else but /status.json,
// and that say what status returns. The process's own status stays at /process.json.
func (o *Operator) Page(page []byte, status func(context.Context) any) {
	o.page, o.pageStatus = page, status
}

// Detail adds a part's own words to the process's Status. f may be called concurrently
// and must not block; its result is written as JSON.
func (o *Operator) Detail(name string, f func() any) {
	o.details = append(o.details, detail{name, f})
}

// Status returns what /status.json says now.
func (o *Operator) Status(ctx context.Context) Status {
	s := o.status
	s.Uptime = time.Since(s.StartedAt).Seconds()
	s.Health = o.health.Check(ctx)
	s.Details = map[string]any{"goroutines": runtime.NumGoroutine()}
	for _, d := range o.details {
		s.Details[d.name] = d.f()
	}
	return s
}

// Handler returns the routes, for tests and for processes that serve them
// elsewhere.
func (o *Operator) Handler() http.Handler { return o.router }

// Addr returns the address that is listened at, or "" before Start and if the
// listener is turned off.
func (o *Operator) Addr() string {
	if o.ln == nil {
		return ""
	}
	return o.ln.Addr().String()
}

// Part returns the listener as a part of a process. It should be the first to
// start, so that it is the last to stop answering.
func (o *Operator) Part() Part {
	return Part{Name: "operator", Start: o.start, Run: o.run}
}

func (o *Operator) start(ctx context.Context) error {
	o.status.StartedAt = time.Now().UTC()
	if o.cfg.Listen == "" {
		return nil
	}
	if !o.cfg.Public {
		if err := loopback(ctx, o.cfg.Listen); err != nil {
			return err
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.cfg.Listen)
	if err != nil {
		return errs.New(errs.Unavailable, "operator.listen: %w", err)
	}
	o.ln = ln
	o.srv = &http.Server{
		Handler:           o.router,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
	}
	return nil
}

// loopback returns an error if the address is reachable from elsewhere.
func loopback(ctx context.Context, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return errs.New(errs.Invalid, "operator.listen: expected host:port, found %q", address)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if host == "" || err != nil {
		return errs.New(errs.Invalid, "operator.listen: expected a loopback address like 127.0.0.1:8888, found %q; "+
			"set operator.public to listen elsewhere", address)
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return errs.New(errs.Invalid, "operator.listen: %s is not a loopback address; set operator.public to listen there", address)
		}
	}
	return nil
}

func (o *Operator) run(ctx context.Context) error {
	if o.ln == nil {
		<-ctx.Done()
		return nil
	}
	served := make(chan error, 1)
	go func() { served <- o.srv.Serve(o.ln) }()
	select {
	case err := <-served:
		return errs.New(errs.Unavailable, "operator listener: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := o.srv.Shutdown(grace); err != nil {
		err = o.srv.Close()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	<-served
	return nil
}

var statusPage = template.Must(template.New("status").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Status.Name}}: {{.Status.Role}}</title>
<meta http-equiv="refresh" content="5">
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
dt{font-weight:600;float:left;clear:left;width:9rem}dd{margin-left:10rem}pre{background:#f4f4f4;padding:1rem;overflow:auto}</style>
<h1>{{.Status.Name}}</h1>
<dl><dt>Role</dt><dd>{{.Status.Role}}</dd><dt>Version</dt><dd>{{.Status.Version}}</dd><dt>Process</dt><dd>{{.Status.Pid}}</dd>
<dt>Started</dt><dd>{{.Status.StartedAt.Format "2006-01-02 15:04:05 MST"}}</dd><dt>Health</dt><dd>{{.Status.Health.Status}}</dd>
{{range .Status.Health.Reasons}}<dt></dt><dd>{{.}}</dd>{{end}}</dl>
<pre>{{.Details}}</pre>
<p><a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · <a href="/health">health</a> · <a href="/debug/pprof/">profiles</a></p>
</html>
`))

func (o *Operator) serveStatus(w http.ResponseWriter, r *http.Request) {
	s := o.Status(r.Context())
	details, err := json.MarshalIndent(s.Details, "", "  ")
	if err != nil {
		details = []byte(err.Error())
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err = statusPage.Execute(w, struct {
		Status  Status
		Details string
	}{s, string(details)})
	if err != nil {
		o.log.Debug("status page not written", "error", err)
	}
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone if this fails
}
