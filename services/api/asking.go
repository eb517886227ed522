// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/tenancy/audit"
)

// Bounds on bodies that are larger than most. Those of imports have their own turns.
const (
	// strangerBodyMax is the most bytes of a body where nobody needs a key, or has one.
	strangerBodyMax = 64 << 10
	// largeAtOnce is how many bodies above bodyMax a process reads and works on, and
	// largeOfOne how many of them are one organization's.
	largeAtOnce = 8
	largeOfOne  = 2
	// bodiesWait is how long such a body waits for its turn.
	bodiesWait = 2 * time.Second
)

// errBodiesRead is of large bodies that come while there are enough.
var errBodiesRead = errs.Coded(errs.Unavailable, "bodies_busy", "%d bodies above %d bytes are read, or %d of the organization; try again when one is done", largeAtOnce, bodyMax, largeOfOne)

// asking is what is known of a request before its body is read. It belongs to the
// request's goroutine.
type asking struct {
	// op is the operation that is asked for; nil if there is none.
	op     *huma.Operation
	caller *caller
	// err is why nobody knows the caller; nil if it is known.
	err error
	// counted: an operation that needs no key was counted; over is what came of it.
	counted bool
	over    error
}

type askingKey struct{}

// known reports whether the caller has a key or a token that holds.
func (a *asking) known() bool { return a.err == nil }

// open reports whether strangers may ask this.
func (a *asking) open() bool { return a.op != nil && len(a.op.Security) == 0 }

// askingOf returns what guard has found out.
func askingOf(r *http.Request) *asking {
	a, ok := r.Context().Value(askingKey{}).(*asking)
	if !ok {
		panic("api: a request that did not pass the guard")
	}
	return a
}

// asked finds out what a request asks for, and who asks.
func (s *Server) asked(r *http.Request) *asking {
	a := &asking{caller: &caller{address: s.proxies.address(r), actor: audit.Actor{Kind: audit.ActorSignUp}}}
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	a.op = s.operations[r.Method+" "+s.router.Find(chi.NewRouteContext(), r.Method, path)]
	secret, ok := bearerToken(r.Header.Get("Authorization"))
	switch {
	case a.op == nil:
		a.err = errKeyMissing
	case !ok:
		a.err = errKeyMissing
	default:
		a.err = s.recognize(r.Context(), a.caller, secret)
	}
	return a
}

// rightMost is how many keys and tokens that were right are remembered, by their digests.
const rightMost = 10_000

// recognize is identify for a secret of a request. Each costs a look-up, so an address that
// has tried too many wrong ones may go on only with those that were right before: the error
// is a Problem 429 for others.
func (s *Server) recognize(ctx context.Context, c *caller, secret string) error {
	digest, address := sha256.Sum256([]byte(secret)), addressName(c.address)
	if !s.right.Contains(digest) {
		if err := s.limiters.wrongKeysAddress.spent(s.now(), address); err != nil {
			return err
		}
	}
	err := s.identify(ctx, c, secret)
	switch {
	case err == nil:
		s.right.Add(digest, struct{}{})
	case errs.Is(err, errs.Denied):
		s.right.Remove(digest)
		_ = s.limiters.wrongKeysAddress.take(s.now(), address) // it is answered all the same
	}
	return err
}

// count counts a request for an operation that needs no key, once, by its address: a key
// does not give more, since everybody can make many. Nothing is read or kept before.
func (s *Server) count(a *asking) error {
	if a.open() && !a.counted {
		l, _ := s.limiters.of(a.op.OperationID)
		a.counted, a.over = true, l.take(s.now(), addressName(a.caller.address))
	}
	return a.over
}

// bodyMaxOf bounds the body of a request before anybody looks at it. Strangers have no
// large ones, and only a few are read at a time, of one organization fewer, and each only for
// a time, so that who sends slowly holds up nobody else: the error is Unavailable if that many
// still are after a while. done must be called when the request is over.
func (s *Server) bodyMaxOf(w http.ResponseWriter, r *http.Request, a *asking) (most int64, done func(), err error) {
	none := func() {}
	if a.op == nil || !a.known() && !a.open() {
		return strangerBodyMax, none, nil // which is not read
	}
	most = a.op.MaxBodyBytes
	if r.ContentLength > most {
		return 0, none, newProblem(http.StatusRequestEntityTooLarge, "body_too_large", "the request body is too large")
	}
	if most <= bodyMax || r.ContentLength >= 0 && r.ContentLength <= bodyMax {
		return most, none, nil
	}
	turns, busy := s.background.large, errBodiesRead
	if importBodies[a.op.OperationID] {
		turns, busy = s.background.bodies, errImportsRead
	}
	if done, err = take(r.Context(), turns, a.caller.principal.Organization); err != nil {
		return 0, none, busy
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(handleTimeout)) // not everywhere
	return most, done, nil
}

// take waits for a turn, but not for long.
func take(ctx context.Context, turns *fair.Turns, key string) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, bodiesWait)
	defer cancel()
	return turns.Take(ctx, key)
}
