// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// stream is a bus.Stream on a JetStream stream.
type stream struct {
	bus    *Bus
	stream jetstream.Stream
	prefix string // of its subjects
}

// readerLife is after what time the server forgets a reader that has died.
const readerLife = 10 * time.Second

// Stream implements bus.Bus.
func (b *Bus) Stream(ctx context.Context, cfg bus.StreamConfig) (bus.Stream, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	ctx, cancel, err := b.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	name, prefix := "EV_"+cfg.Name, "$EV."+cfg.Name+"."
	open := func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, name) }
	s, err := ask(ctx, open)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = b.create(ctx, b.recordsConfig(cfg, name, prefix+">"))
		if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster
			s, err = ask(ctx, open)
		}
	}
	if err == nil && s.CachedInfo().Config.Compression != jetstream.NoCompression { // made by an older version
		stands := s.CachedInfo().Config
		stands.Compression = jetstream.NoCompression
		s, err = ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.UpdateStream(ctx, stands) })
	}
	if err != nil {
		return nil, mapError(err, "stream "+cfg.Name)
	}
	return &stream{bus: b, stream: s, prefix: prefix}, nil
}

func (b *Bus) recordsConfig(cfg bus.StreamConfig, name, subjects string) jetstream.StreamConfig {
	none := func(n int64) int64 {
		if n == 0 {
			return -1
		}
		return n
	}
	replicas := cfg.Replicas
	if replicas == 0 {
		replicas = b.cfg.replicas()
	}
	duplicates := duplicateWindow
	if cfg.Age > 0 {
		duplicates = min(duplicates, cfg.Age)
	}
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{subjects}, Storage: jetstream.FileStorage, Replicas: replicas, Discard: jetstream.DiscardOld,
		MaxAge: cfg.Age, MaxBytes: none(cfg.Bytes), MaxMsgsPerSubject: none(cfg.PerSubject), MaxMsgs: -1, MaxMsgSize: -1, MaxConsumers: -1,
		// Without compression: a server of v2.15 that is killed may not read its last block any more ("s2: corrupt
		// input"), makes the stream anew, empty, and if that happens to several it has no leader again.
		Duplicates: duplicates, Compression: jetstream.NoCompression,
	}
}

func (s *stream) Append(ctx context.Context, subject string, body []byte) (uint64, error) {
	if err := bus.CheckSubject(subject); err != nil {
		return 0, err
	}
	ctx, cancel, err := s.bus.call(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	ack, err := s.bus.js.Publish(ctx, s.prefix+subject, body)
	if err != nil {
		return 0, mapError(err, "append "+subject)
	}
	return ack.Sequence, nil
}

func (s *stream) Read(ctx context.Context, r bus.Read) ([]bus.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	ctx, cancel, err := s.bus.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	cfg := jetstream.ConsumerConfig{
		FilterSubject: s.prefix + r.Filter, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: readerLife,
	}
	switch {
	case r.After > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.After+1
	case !r.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.Since
	}
	reader, err := s.stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return nil, mapError(err, "read "+r.Filter)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.stream.DeleteConsumer(end, reader.CachedInfo().Name) // else the server forgets it in readerLife
	}()
	there := int(min(reader.CachedInfo().NumPending, uint64(r.Most)))
	if there == 0 {
		return nil, nil
	}
	found, err := s.whenKnown(ctx, reader, there)
	if err != nil {
		return nil, mapError(err, "read "+r.Filter)
	}
	return found, nil
}

// readAgain is how long whenKnown waits before it asks again.
const readAgain = 10 * time.Millisecond

// whenKnown is fetch, once the servers know of the consumer: of one that has just been made
// in a cluster not all do, and those say that nobody serves it.
func (s *stream) whenKnown(ctx context.Context, reader jetstream.Consumer, n int) ([]bus.Record, error) {
	for {
		found, err := s.fetch(ctx, reader, n)
		if !errors.Is(err, nats.ErrNoResponders) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(readAgain):
		}
	}
}

// fetch returns the next n records of a consumer that has as many.
func (s *stream) fetch(ctx context.Context, reader jetstream.Consumer, n int) ([]bus.Record, error) {
	batch, err := reader.Fetch(n, jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	var found []bus.Record
	for m := range batch.Messages() {
		rec, err := s.record(m)
		if err != nil {
			return nil, err
		}
		found = append(found, rec)
	}
	return found, batch.Error()
}

func (s *stream) record(m jetstream.Msg) (bus.Record, error) {
	meta, err := m.Metadata()
	if err != nil {
		return bus.Record{}, errs.New(errs.Internal, "a record of %s: %w", s.prefix, err)
	}
	return bus.Record{Subject: m.Subject()[len(s.prefix):], Body: m.Data(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp}, nil
}

func (s *stream) Follow(ctx context.Context, filter string, f func(bus.Record)) error {
	if err := bus.CheckFilter(filter); err != nil {
		return err
	}
	call, cancel, err := s.bus.call(ctx)
	if err != nil {
		return err
	}
	reader, err := s.stream.OrderedConsumer(call, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{s.prefix + filter}, DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: readerLife,
	})
	cancel()
	if err != nil {
		return mapError(err, "follow "+filter)
	}
	reading, err := reader.Consume(func(m jetstream.Msg) {
		if rec, err := s.record(m); err == nil {
			f(rec)
		}
	})
	if err != nil {
		return mapError(err, "follow "+filter)
	}
	<-ctx.Done()
	reading.Stop()
	<-reading.Closed() // f is not called any more
	return ctx.Err()
}

func (s *stream) Remove(ctx context.Context, filter string, before time.Time) error {
	if err := bus.CheckFilter(filter); err != nil {
		return err
	}
	// What comes while it is looked for is behind all that there is now.
	call, cancel, err := s.bus.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	info, err := s.stream.Info(call)
	if err != nil {
		return mapError(err, "remove "+filter)
	}
	first := info.State.LastSeq + 1
	later, err := s.Read(ctx, bus.Read{Filter: filter, Since: before, Most: 1})
	if err != nil {
		return err
	}
	if len(later) > 0 {
		first = later[0].Sequence
	}
	if first <= max(info.State.FirstSeq, 1) {
		return nil
	}
	if err := s.stream.Purge(call, jetstream.WithPurgeSubject(s.prefix+filter), jetstream.WithPurgeSequence(first)); err != nil {
		return mapError(err, "remove "+filter)
	}
	return nil
}
