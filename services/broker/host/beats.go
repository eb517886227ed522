// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

const (
	// beatEvery is how often the heartbeat is rewritten.
	beatEvery = time.Second
	// busSilent is after how many ms without one of its own heartbeats in the watch a
	// broker takes the bus for away: those of the others would not be seen either.
	busSilent = 2500
)

// tombstonePrefix is that of the keys of brokers that were given up (broker/member).
const tombstonePrefix = "left."

// beatKey is a name as a key of the bus.
func beatKey(b partition.Broker) string { return base64.RawURLEncoding.EncodeToString([]byte(b)) }

// beat rewrites this broker's heartbeat.
func (h *Host) beat(ctx context.Context) {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	// Another number than those of earlier runs, which may still be there.
	count := h.config.Run << 20
	for {
		count++
		stopping := h.stopping.Load()
		starting := !stopping && !h.informed.Load() // others own what it cannot serve
		beat := placement.Beat{
			Count: count, Zone: h.config.Zone, Labels: h.config.Labels, Weight: h.config.Weight, Draining: h.draining.Load(),
			Stopping: stopping || starting, Busy: starting,
			Cluster: h.config.Cluster, Links: h.config.Links, Version: h.config.Version,
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := h.config.Beats.Put(call, beatKey(h.config.Self), beat.Append(nil), bus.Any)
		cancel()
		if err != nil && ctx.Err() == nil {
			h.log.Warn("the bus does not take the heartbeat", slog.Any("error", err))
			h.post(func() { h.bus(false) })
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-h.beatNow:
		}
	}
}

// watchBeats tells the loop of all heartbeats.
func (h *Host) watchBeats(ctx context.Context) {
	err := h.config.Beats.Watch(ctx, bus.Watch{}, func(u bus.Update) {
		rest, tombstone := strings.CutPrefix(u.Entry.Key, tombstonePrefix)
		name, err := base64.RawURLEncoding.DecodeString(rest)
		if u.Synced || err != nil {
			return
		}
		b := partition.Broker(name)
		if tombstone {
			h.post(func() {
				h.watch.At(h.now())
				h.watch.Tombstone(b, !u.Deleted)
			})
			return
		}
		if u.Deleted {
			h.post(func() {
				h.watch.At(h.now())
				h.watch.Left(b)
			})
			return
		}
		beat, err := placement.ParseBeat(u.Entry.Value)
		if err != nil {
			h.log.Warn("a heartbeat is not readable", slog.String("of", string(b)), slog.Any("error", err))
			return
		}
		h.post(func() {
			h.watch.At(h.now())
			h.watch.Beat(b, beat)
			if b == h.config.Self && beat.Count>>20 == h.config.Run {
				h.bus(true) // it went all the way around
			}
		})
	})
	if ctx.Err() == nil {
		h.log.Error("the watch of the heartbeats has ended", slog.Any("error", err))
	}
}

// bus notes whether the bus is there.
func (h *Host) bus(up bool) {
	if up {
		h.aroundAt = h.now()
	}
	h.watch.At(h.now())
	h.watch.Bus(up)
}

// busTicked notes that the bus has been silent for too long.
func (h *Host) busTicked(now int64) {
	if now-h.aroundAt >= busSilent {
		h.watch.Bus(false)
	}
}
