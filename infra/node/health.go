// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/manormq/manor/infra/errs"
)

// checkTimeout bounds one health check: a check that hangs is a failed one.
const checkTimeout = 2 * time.Second

// Report is what /health says. Status is "OK" or "DOWN". One check alone says why in
// Reason too, as VerneMQ's do.
type Report struct {
	Status  string   `json:"status"`
	Reason  string   `json:"reason,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// Health is a set of named checks. It is safe for concurrent use; the zero
// value has none and is healthy.
type Health struct {
	mu     sync.Mutex
	checks map[string]func(context.Context) error // guarded by mu
	apart  map[string]bool                        // guarded by mu: no part of the whole
}

// Register adds a check; nil from it means all is well. A name that is taken
// is replaced. The check may be called concurrently.
func (h *Health) Register(name string, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = map[string]func(context.Context) error{}
	}
	h.checks[name] = check
	delete(h.apart, name)
}

// RegisterApart adds a check that is asked by its name only: that it fails says nothing
// of this process.
func (h *Health) RegisterApart(name string, check func(context.Context) error) {
	h.Register(name, check)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.apart == nil {
		h.apart = map[string]bool{}
	}
	h.apart[name] = true
}

// Check runs all checks at the same time and reports, reasons in order of the
// names.
func (h *Health) Check(ctx context.Context) Report {
	h.mu.Lock()
	names := make([]string, 0, len(h.checks))
	for name := range h.checks {
		if !h.apart[name] {
			names = append(names, name)
		}
	}
	h.mu.Unlock()
	slices.Sort(names)
	failures := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { failures[i] = h.checkOne(ctx, name) })
	}
	wg.Wait()
	r := Report{Status: "OK"}
	for i, err := range failures {
		if err != nil {
			r.Status = "DOWN"
			r.Reasons = append(r.Reasons, names[i]+": "+err.Error())
		}
	}
	return r
}

func (h *Health) checkOne(ctx context.Context, name string) error {
	h.mu.Lock()
	check := h.checks[name]
	h.mu.Unlock()
	if check == nil {
		return errs.New(errs.NotFound, "there is no such check")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- check(ctx) }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "no answer within %s", checkTimeout)
	}
}

func (h *Health) serveAll(w http.ResponseWriter, r *http.Request) {
	writeReport(w, h.Check(r.Context()))
}

func (h *Health) serveOne(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(chi.URLParam(r, "check"))
	err := h.checkOne(r.Context(), name)
	switch {
	case err == nil:
		writeReport(w, Report{Status: "OK"})
	case errs.Is(err, errs.NotFound):
		writeJSON(w, http.StatusNotFound, Report{Status: "DOWN", Reasons: []string{err.Error()}})
	default:
		writeReport(w, Report{Status: "DOWN", Reason: err.Error(), Reasons: []string{err.Error()}})
	}
}

func writeReport(w http.ResponseWriter, r Report) {
	code := http.StatusOK
	if r.Status != "OK" {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, r)
}
