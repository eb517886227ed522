// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/store"
)

func isAPI(r *http.Request) bool { return r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/") }

// bodyMaxOf bounds the body of a request before anybody looks at it. Strangers have no
// large ones, and only a few are read at a time, of one organization fewer, and each only for
// a time, so that who sends slowly holds up nobody else: busy is Unavailable if that many
// still are after a while. done must be called when the request is over.
func (s *Server) bodyMaxOf(w http.ResponseWriter, r *http.Request) (most int64, done func(), busy error) {
	none := func() {}
	most = importBodyMax
	switch {
	case strings.HasSuffix(r.URL.Path, importPath):
	case r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, passwdPath):
		most = publishBodyMax
	default:
		return publishBodyMax, none, nil
	}
	c := &caller{}
	if secret, ok := bearerToken(r.Header.Get("Authorization")); !ok || s.identify(r.Context(), c, secret) != nil {
		return publishBodyMax, none, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodiesWait)
	defer cancel()
	done, err := s.background.bodies.Take(ctx, c.principal.Organization)
	if err != nil {
		return 0, none, errImportsRead
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(handleTimeout)) // not everywhere
	return most, done, nil
}

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
		most, done, busy := s.bodyMaxOf(sw, r)
		defer done()
		if busy != nil {
			writeProblem(sw, problemOf(busy))
			return
		}
		r.Body = http.MaxBytesReader(sw, r.Body, most)
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
		next.ServeHTTP(sw, r)
	})
}

// idempotent gives a POST that is made again with the same Idempotency-Key the
// answer of the first one.
func (s *Server) idempotent(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if r.Method != http.MethodPost || key == "" || !isAPI(r) || r.URL.Query().Get("dry_run") == "true" {
			next.ServeHTTP(w, r)
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
	} else if secret, ok := bearerToken(caller); !ok || !s.validKey(r.Context(), secret) {
		next.ServeHTTP(w, r) // which says what is wrong with it
		return nil
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
	out := &store.Reply{Status: ownStatus(rec.status), ContentType: w.Header().Get("Content-Type"), ETag: w.Header().Get("ETag"), Body: rec.body.Bytes()}
	if out.Status < http.StatusInternalServerError && out.Status != http.StatusTooManyRequests {
		if err := once.Answer(finish, *out); err != nil {
			s.log.Warn("answer not kept for its Idempotency-Key", "path", r.URL.Path, "error", err)
		} else {
			end = nil
		}
	} else if out.Status == http.StatusTooManyRequests {
		end = once.Forget
	}
	send(w, out)
	return nil
}

func (s *Server) validKey(ctx context.Context, secret string) bool {
	return s.identify(ctx, &caller{}, secret) == nil
}

func send(w http.ResponseWriter, r *store.Reply) {
	if r.ContentType != "" {
		w.Header().Set("Content-Type", r.ContentType)
	}
	if r.ETag != "" {
		w.Header().Set("ETag", r.ETag)
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
