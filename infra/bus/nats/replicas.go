// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
)

// A bucket that several servers keep may be read from one that lags behind the others.
// Three things must not depend on luck then: Get answers with what was acknowledged
// before, so that it asks the leader; Synced comes behind all of that; and a watch
// whose server has died goes on at another.

// autoReplicas is how many servers keep a bucket where there are that many.
const autoReplicas = 3

func (c *Config) replicas() int {
	switch {
	case c.Replicas > 0:
		return c.Replicas
	case len(c.URLs) >= autoReplicas:
		return autoReplicas
	default:
		return 1
	}
}

// openBucket opens the bucket and makes it if it is missing.
func (b *Bus) openBucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	open := func(ctx context.Context) (jetstream.KeyValue, error) { return b.js.KeyValue(ctx, cfg.Name) }
	kv, err := ask(ctx, open)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		replicas := cfg.Replicas
		if replicas == 0 {
			replicas = b.cfg.replicas()
		}
		err = b.create(ctx, streamConfig(cfg, replicas))
		if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster
			kv, err = askMade(ctx, open)
		}
	}
	if err != nil {
		return nil, mapError(err, "bucket "+cfg.Name)
	}
	stream, err := ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, streamName(cfg.Name)) })
	if err != nil {
		return nil, mapError(err, "bucket "+cfg.Name)
	}
	return &bucket{bus: b, kv: kv, stream: stream, replicated: stream.CachedInfo().Config.Replicas > 1}, nil
}

func streamName(bucket string) string { return "KV_" + bucket }

// duplicateWindow is the server's own; a stream cannot have one above its MaxAge.
const duplicateWindow = 2 * time.Minute

// streamConfig is the stream of a bucket, as NATS lays buckets down (ADR-8 of
// nats-architecture-and-design), but for AllowDirect: with it any server answers Get.
func streamConfig(cfg bus.BucketConfig, replicas int) jetstream.StreamConfig {
	duplicates := duplicateWindow
	if cfg.TTL > 0 {
		duplicates = min(duplicates, cfg.TTL)
	}
	return jetstream.StreamConfig{
		Name:              streamName(cfg.Name),
		Subjects:          []string{"$KV." + cfg.Name + ".>"},
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		MaxAge:            cfg.TTL,
		Duplicates:        duplicates,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       replicas == 1,
	}
}

// askAgain is after what time without an answer a question is asked again, createAgain
// what several servers have to agree about.
const (
	askAgain    = time.Second
	createAgain = 4 * time.Second
)

// create makes a stream, or finds that it was made as it should be. The leader of the
// servers may die, or another be chosen, before it answers: then nobody does.
func (b *Bus) create(ctx context.Context, cfg jetstream.StreamConfig) error {
	_, err := askEach(ctx, createAgain, func(ctx context.Context) (jetstream.Stream, error) { return b.js.CreateStream(ctx, cfg) })
	return err
}

// ask asks the leader of a bucket, again and again until ctx is done: while there is
// none, for 4 to 9 s after it was killed, nobody answers, nor later. f must change
// nothing.
func ask[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	return askEach(ctx, askAgain, f)
}

// askEach is ask that gives each answer so much time.
func askEach[T any](ctx context.Context, each time.Duration, f func(context.Context) (T, error)) (T, error) {
	for {
		call, cancel := context.WithTimeout(ctx, each)
		v, err := f(call)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return v, err
		}
	}
}

// madeAgain is after what time a server is asked again that does not know what was made.
const madeAgain = 50 * time.Millisecond

// askMade is ask about a bucket that was made a moment ago, maybe by another node: a
// server may not have heard of it.
func askMade[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	for {
		v, err := ask(ctx, f)
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return v, err
		}
		select {
		case <-time.After(madeAgain):
		case <-ctx.Done():
			return v, err
		}
	}
}

// last is newest if the bucket is kept by several servers; 0 if by one, which cannot lag.
func (b *bucket) last(ctx context.Context, prefix string) (uint64, error) {
	if !b.replicated {
		return 0, nil
	}
	return b.newest(ctx, prefix)
}

// newest is the newest revision of what begins with prefix, as the leader knows it; 0 if
// there is nothing.
func (b *bucket) newest(ctx context.Context, prefix string) (uint64, error) {
	subject := ">" // all that there is: for any other subject the server looks at each that matches
	if prefix != "" {
		subject = "$KV." + b.kv.Bucket() + "." + prefix + ">"
	}
	m, err := ask(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return b.stream.GetLastMsgForSubject(ctx, subject)
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}

// askEvery is how often it is asked how far a bucket is that is watched: a watch that
// tells nothing may be complete, or have stopped. The NATS client itself notices after
// 3 to 4 s that the server of a watch is cut off.
const askEvery = 2 * time.Second

// position is how far a bucket was at a time.
type position struct {
	last uint64
	at   time.Time
	// late says that nobody answered at first: the bucket has had no leader, and what
	// watches it may have ended with the one before.
	late bool
}

var errBehind = errors.New("the watch has stopped behind the bucket")

// positions asks how far the bucket is, again and again until ctx is done, if that
// matters to s. That nobody answers is no error.
func (b *bucket) positions(ctx context.Context, s *watching) <-chan position {
	if !b.replicated && s.Current == nil {
		return nil
	}
	out := make(chan position)
	go func() {
		t := time.NewTicker(askEvery)
		defer t.Stop()
		for late := false; ; {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			at := time.Now()
			call, cancel, err := b.bus.call(ctx)
			if err != nil {
				continue
			}
			last, err := b.newest(call, s.Prefix)
			cancel()
			late = late || time.Since(at) >= askAgain
			if err != nil {
				continue
			}
			select {
			case out <- position{last, at, late}:
				late = false
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
