// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/store"
)

func isAPI(r *http.Request) bool { return r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/") }

// guard bounds every request and survives its panics.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		if isAPI(r) {
			h.Set("Cache-Control", "no-store") // answers hold secrets
			// What curl -d says without meaning it. No browser sends an API key
			// by itself, so nothing rests on the type of the body.
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
				r.Header.Set("Content-Type", "application/json")
			}
		}
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			v := recover()
			switch v {
			case nil:
				return
			case http.ErrAbortHandler:
				panic(v) // has the server break the connection off
			}
			s.log.Error("API handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			if sw.status == 0 {
				writeProblem(sw, problemOf(errs.New(errs.Internal, "panic")))
			}
		}()
		a := s.asked(r)
		most, done, err := s.bodyMaxOf(sw, r, a)
		defer done()
		if err != nil {
			writeProblem(sw, problemOf(err))
			return
		}
		r.Body = http.MaxBytesReader(sw, r.Body, most)
		next.ServeHTTP(sw, r.WithContext(context.WithValue(r.Context(), askingKey{}, a)))
	})
}

// idempotent gives a POST that is made again with the same Idempotency-Key the
// answer of the first one.
func (s *Server) idempotent(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if r.Method != http.MethodPost || key == "" || r.URL.Query().Get("dry_run") == "true" || !s.mayKeep(r) {
			next.ServeHTTP(w, r) // which says what is wrong with it, if something is
			return
		}
		if err := s.once(w, r, key, next); err != nil {
			p := problemOf(err)
			if p.Status >= http.StatusInternalServerError {
				s.log.Error("API request failed", "path", r.URL.Path, "error", err)
			}
			writeProblem(w, p)
		}
	})
}

// mayKeep reports whether an answer may be kept: to a request for something that is there, of
// a caller who is known, or of a stranger where strangers may ask, and not too often.
func (s *Server) mayKeep(r *http.Request) bool {
	a := askingOf(r)
	if !a.open() {
		return a.op != nil && a.known()
	}
	return (a.known() || r.Header.Get("Authorization") == "") && s.count(a) == nil
}

func (s *Server) once(w http.ResponseWriter, r *http.Request, key string, next http.Handler) error {
	if len(key) > 255 || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errs.Coded(errs.Invalid, "idempotency_key_invalid", "Idempotency-Key: expected 1 to 255 visible ASCII characters")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return newProblem(http.StatusRequestEntityTooLarge, "body_too_large", "the request body is too large")
		}
		return errs.New(errs.Invalid, "read the request: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	caller := r.Header.Get("Authorization")
	sum := sha256.Sum256(body)
	if caller == "" {
		// Strangers who happen to choose the same key do not meet.
		caller = "anonymous " + hex.EncodeToString(sum[:])
	}
	request := r.Method + " " + r.URL.RequestURI() + "\n" + hex.EncodeToString(sum[:])
	once, reply, err := s.store.Begin(r.Context(), caller, key, []byte(request))
	if err != nil {
		return err
	}
	if reply != nil {
		w.Header().Set("Idempotency-Replayed", "true")
		send(w, reply)
		return nil
	}
	rec := &recorder{header: w.Header(), status: http.StatusOK}
	// The answer is kept also if the caller has gone meanwhile: it will ask
	// again.
	finish, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second+handleTimeout)
	defer cancel()
	end := once.GiveUp
	defer func() {
		if end != nil {
			_ = end(finish) // else it is given up in 15 s
		}
	}()
	done := once.Work(finish)
	next.ServeHTTP(rec, r.WithContext(once.Context(r.Context())))
	done()
	out := &store.Reply{Status: ownStatus(rec.status), ContentType: w.Header().Get("Content-Type"), ETag: w.Header().Get("ETag"), Location: w.Header().Get("Location"), Body: rec.body.Bytes()}
	kept := *out
	if len(kept.Body) > s.keptMax {
		kept.ContentType, kept.Body = problemType, notKept(kept.Status)
	}
	switch stranger := !askingOf(r).known(); {
	case out.Status == http.StatusTooManyRequests, stranger && out.Status >= http.StatusBadRequest && out.Status < http.StatusInternalServerError:
		end = once.Forget // nothing was made, and what strangers get wrong is not kept
	case out.Status < http.StatusInternalServerError:
		if err := once.Answer(finish, kept); err != nil {
			s.log.Warn("answer not kept for its Idempotency-Key", "path", r.URL.Path, "error", err)
		} else {
			end = nil
		}
	}
	send(w, out)
	return nil
}

// keptMax is how many bytes of an answer are kept for its Idempotency-Key: sealed, and with
// what is around it, it is a value of a bucket, of which NATS takes up to 1 MB.
const keptMax = 256 << 10

// notKept is what a repetition gets instead of a body that was too large.
func notKept(status int) []byte {
	p := newProblem(status, "answer_too_large", fmt.Sprintf("the request was done before, with this Idempotency-Key, and answered with status %d; that answer was above %d bytes, and is not kept: read what is there now", status, keptMax))
	b, _ := json.Marshal(p) // of strings and numbers
	return b
}

func send(w http.ResponseWriter, r *store.Reply) {
	if r.ContentType != "" {
		w.Header().Set("Content-Type", r.ContentType)
	}
	if r.ETag != "" {
		w.Header().Set("ETag", r.ETag)
	}
	if r.Location != "" {
		w.Header().Set("Location", r.Location)
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body) // the client is gone if this fails
}

// recorder keeps an answer instead of sending it.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
