// SPDX-License-Identifier: Apache-2.0

// Package client calls the public API /v1: what the commands of manor use, and
// programs in Go may. Its types are held to docs/openapi.json by its tests. It
// owns no goroutine, and links nothing of the server.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Config says where the API is.
type Config struct {
	// URL is such as http://127.0.0.1:8080.
	URL string
	// Key is an API key or the token of a member; empty for what needs none.
	Key string
	// HTTP makes the requests; nil is a client that waits for 30 s.
	HTTP *http.Client
}

// Client calls the API. It is safe for concurrent use. Make it with New.
type Client struct {
	base *url.URL
	key  string
	http *http.Client
}

// New checks the configuration. The error is Invalid.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(cfg.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errs.New(errs.Invalid, "expected the URL of the API, like http://127.0.0.1:8080, found %q", cfg.URL)
	}
	c := &Client{base: base, key: cfg.Key, http: cfg.HTTP}
	if c.http == nil {
		c.http = &http.Client{Timeout: 30 * time.Second}
	}
	return c, nil
}

// Problem is what the API answers when it does not do what was asked (RFC
// 9457).
type Problem struct {
	Type       string          `json:"type"`
	Title      string          `json:"title"`
	Status     int             `json:"status"`
	Detail     string          `json:"detail"`
	Code       string          `json:"code"`
	Quota      string          `json:"quota,omitempty"`
	Limit      *int64          `json:"limit,omitempty"`
	Usage      *int64          `json:"usage,omitempty"`
	RetryAfter int64           `json:"retry_after,omitempty"` // seconds
	Errors     []ProblemDetail `json:"errors,omitempty"`
	MoreErrors int             `json:"more_errors,omitempty"`
}

// ProblemDetail is one thing that is wrong with a request.
type ProblemDetail struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// Error is what a person reads.
func (p *Problem) Error() string { return fmt.Sprintf("%s (%d %s)", p.Detail, p.Status, p.Code) }

// ErrKind is how a program takes it.
func (p *Problem) ErrKind() errs.Kind {
	switch {
	case p.Quota != "" || p.Status == http.StatusTooManyRequests:
		return errs.Quota
	case p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden:
		return errs.Denied
	case p.Status == http.StatusNotFound || p.Status == http.StatusGone:
		return errs.NotFound
	case p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed:
		return errs.Conflict
	case p.Status >= http.StatusInternalServerError:
		return errs.Unavailable
	}
	return errs.Invalid
}

// Option is something that a call may have beside what it asks for.
type Option func(*request)

type request struct {
	query  url.Values
	header http.Header
	take   map[string]*string
	etag   *string // where that of the answer goes, or nil
}

// DryRun has everything be checked and nothing be changed.
func DryRun() Option { return func(r *request) { r.query.Set("dry_run", "true") } }

// IfMatch has a change fail if the thing has changed since it had that ETag.
func IfMatch(etag string) Option { return func(r *request) { r.header.Set("If-Match", etag) } }

// Idempotent has a call that makes something, and is made again with the same
// key within 24 h, get the answer of the first.
func Idempotent(key string) Option {
	return func(r *request) { r.header.Set("Idempotency-Key", key) }
}

// TakeETag has a call put the ETag of its answer there, for IfMatch; empty if it has none.
func TakeETag(etag *string) Option { return func(r *request) { r.etag = etag } }

// TakeHeader has a call put that header of its answer there; empty if it has none.
func TakeHeader(name string, into *string) Option {
	return func(r *request) {
		if r.take == nil {
			r.take = map[string]*string{}
		}
		r.take[name] = into
	}
}

// Query adds a parameter such as limit or cursor; an empty value adds none.
func Query(name, value string) Option {
	return func(r *request) {
		if value != "" {
			r.query.Set(name, value)
		}
	}
}

// answerMax bounds an answer that is read whole, in bytes.
const answerMax = 64 << 20

// call does the operation of that id; params are the names and values of its
// path in turn. in is its body, or nil; out takes the answer, or is nil.
func (c *Client) call(ctx context.Context, id string, params []string, in, out any, options []Option) error {
	body, err := c.open(ctx, id, params, in, options)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	b, err := io.ReadAll(io.LimitReader(body, answerMax))
	if err != nil {
		return errs.New(errs.Unavailable, "%s: %w", id, err)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errs.New(errs.Internal, "%s: the answer is not what was expected: %w", id, err)
	}
	return nil
}

// open is call whose answer the caller reads and closes.
func (c *Client) open(ctx context.Context, id string, params []string, in any, options []Option) (io.ReadCloser, error) {
	op, ok := operations[id]
	if !ok {
		return nil, errs.New(errs.Internal, "there is no operation %s", id)
	}
	path := op.path
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] == "" {
			return nil, errs.New(errs.Invalid, "%s: expected a %s", id, params[i])
		}
		path = strings.ReplaceAll(path, "{"+params[i]+"}", url.PathEscape(params[i+1]))
	}
	r := request{query: url.Values{}, header: http.Header{}}
	for _, o := range options {
		o(&r)
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, errs.New(errs.Internal, "%s: %w", id, err)
		}
		body = bytes.NewReader(b)
		r.header.Set("Content-Type", "application/json")
	}
	target := c.base.String() + path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, op.method, target, body)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", id, err)
	}
	req.Header = r.header
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the API cannot be reached: %w", err)
	}
	if r.etag != nil {
		*r.etag = resp.Header.Get("ETag")
	}
	for name, into := range r.take {
		*into = resp.Header.Get(name)
	}
	// With another status a problem says that the answer to a request that was made again was
	// too large to be kept.
	if resp.StatusCode < http.StatusBadRequest && resp.Header.Get("Content-Type") != "application/problem+json" {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	p := &Problem{}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil || p.Code == "" {
		return nil, errs.New(errs.Unavailable, "%s %s: %s, with an answer that the API does not give; is it the right URL?", op.method, target, resp.Status)
	}
	return nil, p
}

// AsProblem returns what the API has answered, or nil if it was something else.
func AsProblem(err error) *Problem {
	p, _ := errors.AsType[*Problem](err)
	return p
}
