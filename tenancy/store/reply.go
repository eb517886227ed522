// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Reply is an answer that was given under an Idempotency-Key.
type Reply struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type"`
	ETag        string `json:"etag,omitempty"`
	Location    string `json:"location,omitempty"`
	Body        []byte `json:"body"`
}

// storedReply is a Reply as it is kept. Answers may hold secrets that are shown
// once, so they are sealed with a key that only the holder of the
// Idempotency-Key can make; the store has its digest alone.
type storedReply struct {
	// Sealed is empty while the request is being worked on.
	Sealed []byte `json:"sealed,omitempty"`
	// Request tells the request of the key from others, to who has the key.
	Request []byte `json:"request,omitempty"`
	// CreatedAt is when it was answered, or when who works on it last said so.
	CreatedAt time.Time `json:"created_at"`
}

// sealedReply is what is inside.
type sealedReply struct {
	// Request is the SHA-256 of what was asked.
	Request []byte `json:"request"`
	Reply   Reply  `json:"reply"`
}

// Who works on a request says so every workEvery. It was given up, with its process,
// when nothing was heard for workLife: then it may be made again. The clocks of two
// processes may be apart by the difference.
const (
	workEvery = 3 * time.Second
	workLife  = 15 * time.Second
)

// Once is a request under an Idempotency-Key that is being worked on.
type Once struct {
	s       *Store
	key     string // of the bucket
	seal    []byte
	request []byte
	// again: the one before was given up.
	again bool

	mu  sync.Mutex
	rev uint64 // guarded by mu
}

type onceKey struct{}

// Context is a context of the request: what is made in it is known to be the
// request's, if that is given up and made again.
func (o *Once) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, o)
}

// requestOf names the request that ctx is of; empty if it has no Idempotency-Key.
func requestOf(ctx context.Context) string {
	if o, _ := ctx.Value(onceKey{}).(*Once); o != nil {
		return o.key
	}
	return ""
}

// madeBefore reports whether name is of the request of ctx, and that one is made again
// because it was given up: what it has made then nobody was told of.
func madeBefore(ctx context.Context, name string) bool {
	o, _ := ctx.Value(onceKey{}).(*Once)
	return o != nil && o.again && name == o.key
}

// mark is what storedReply.Request has.
func (o *Once) mark() []byte {
	sum := sha256.Sum256(append(append([]byte("manor reply request"), o.seal...), o.request...))
	return sum[:]
}

// Work says that the request is being worked on until the function that it returns is
// called, or ctx is done.
func (o *Once) Work(ctx context.Context) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(workEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// If it fails, and not the next one either, another may do the request.
				_ = o.put(ctx, storedReply{})
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// put writes what is known of the request.
func (o *Once) put(ctx context.Context, r storedReply) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.CreatedAt, r.Request = o.s.now().UTC(), o.mark()
	rev, err := put(ctx, o.s.replies, o.key, r, bus.Revision(o.rev))
	if err == nil {
		o.rev = rev
	}
	return err
}

// Begin begins a request: caller is who asks, key the Idempotency-Key, request
// what is asked. If it was answered before, that answer is returned and nil.
// The error is Conflict with Code "idempotency_in_progress" while another one is
// worked on, and Code "idempotency_key_reused" if it asked for something else.
func (s *Store) Begin(ctx context.Context, caller, key string, request []byte) (*Once, *Reply, error) {
	secret := []byte(caller + "\x00" + key)
	name, err := hkdf.Key(sha256.New, secret, nil, "manor reply name", 32)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "derive a key: %w", err)
	}
	seal, err := hkdf.Key(sha256.New, secret, nil, "manor reply seal", 32)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "derive a key: %w", err)
	}
	digest := sha256.Sum256(request)
	o := &Once{s: s, key: hex.EncodeToString(name), seal: seal, request: digest[:]}
	now := s.now().UTC()
	at := bus.Absent
	for {
		o.rev, err = put(ctx, s.replies, o.key, storedReply{CreatedAt: now, Request: o.mark()}, at)
		if err == nil {
			return o, nil, nil
		}
		if !errs.Is(err, errs.Conflict) {
			return nil, nil, err
		}
		e, err := s.replies.Get(ctx, o.key)
		if errs.Is(err, errs.NotFound) {
			at = bus.Absent
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		var old storedReply
		if err := json.Unmarshal(e.Value, &old); err != nil {
			return nil, nil, errs.New(errs.Internal, "stored answer: %w", err)
		}
		if len(old.Sealed) > 0 {
			r, err := o.open(old.Sealed)
			return nil, r, err
		}
		if old.Request != nil && !bytes.Equal(old.Request, o.mark()) {
			return nil, nil, errs.Coded(errs.Conflict, "idempotency_key_reused", "this Idempotency-Key was used for another request")
		}
		if now.Sub(old.CreatedAt) < workLife {
			return nil, nil, errs.Coded(errs.Conflict, "idempotency_in_progress", "a request with this Idempotency-Key is being worked on; ask again in some seconds")
		}
		at, o.again = e.Revision, true
	}
}

// Answer keeps the reply for 24 h.
func (o *Once) Answer(ctx context.Context, r Reply) error {
	sealed, err := o.close(r)
	if err != nil {
		return err
	}
	return o.put(ctx, storedReply{Sealed: sealed})
}

// GiveUp lets the request be made again at once, after a failure of ours: it may have made
// something that nobody was told of (madeBefore).
func (o *Once) GiveUp(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := put(ctx, o.s.replies, o.key, storedReply{Request: o.mark()}, bus.Revision(o.rev))
	return err
}

// Forget lets the request, or another one, be made again: it has made nothing.
func (o *Once) Forget(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.s.replies.Delete(ctx, o.key, bus.Revision(o.rev))
}

func (o *Once) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(o.seal)
	if err != nil {
		return nil, errs.New(errs.Internal, "seal an answer: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, errs.New(errs.Internal, "seal an answer: %w", err)
	}
	return aead, nil
}

func (o *Once) close(r Reply) ([]byte, error) {
	plain, err := json.Marshal(sealedReply{Request: o.request, Reply: r})
	if err != nil {
		return nil, errs.New(errs.Internal, "seal an answer: %w", err)
	}
	aead, err := o.aead()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(o.key)), nil
}

func (o *Once) open(sealed []byte) (*Reply, error) {
	aead, err := o.aead()
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(o.key))
	if err != nil {
		return nil, errs.New(errs.Internal, "open a stored answer: %w", err)
	}
	var in sealedReply
	if err := json.Unmarshal(plain, &in); err != nil {
		return nil, errs.New(errs.Internal, "open a stored answer: %w", err)
	}
	if !bytes.Equal(in.Request, o.request) {
		return nil, errs.Coded(errs.Conflict, "idempotency_key_reused", "this Idempotency-Key was used for another request")
	}
	return &in.Reply, nil
}
