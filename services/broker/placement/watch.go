// SPDX-License-Identifier: Apache-2.0

package placement

import "github.com/manormq/manor/services/broker/partition"

// Watch is what a broker sees of the others. It is partition.Peers. It is owned by
// one goroutine; ages count from the newest At.
type Watch struct {
	clock, now int64
	brokers    []watched
	busUp      bool
	busSince   int64
}

type watched struct {
	name    partition.Broker
	beat    Beat
	there   bool
	gaveUp  bool  // there is a tombstone of it
	since   int64 // since when it is there without a break
	moved   int64 // when the heartbeat changed last
	heard   int64 // when something came over the link last
	hasLink bool
}

var _ partition.Peers = (*Watch)(nil)

// At tells the time, in milliseconds. Only its steps forwards count.
func (w *Watch) At(now int64) {
	if w.now != 0 && now > w.now {
		w.clock += now - w.now
	}
	w.now = now
}

// Bus tells whether the bus can be reached.
func (w *Watch) Bus(up bool) {
	if up != w.busUp {
		w.busUp, w.busSince = up, w.clock
	}
}

// Beat tells a heartbeat that was read. The same one again says nothing.
func (w *Watch) Beat(b partition.Broker, beat Beat) {
	s := w.find(b)
	if s.gaveUp {
		return // it does not know yet that it is no member
	}
	if s.there && s.beat.Count == beat.Count {
		s.beat = beat
		return
	}
	if !s.there || w.clock-s.moved >= Gone {
		s.since = w.clock
	}
	s.beat, s.moved, s.there = beat, w.clock, true
}

// Left tells that the heartbeat key of b was deleted: it left, or was removed.
func (w *Watch) Left(b partition.Broker) {
	s := w.find(b)
	s.there, s.moved = false, w.clock-Gone
}

// Tombstone tells that b was given up, or that it is no more (there is false): until
// then its heartbeats count for nothing.
func (w *Watch) Tombstone(b partition.Broker, there bool) {
	s := w.find(b)
	if s.gaveUp = there; there {
		w.Left(b)
	}
}

// Heard tells that something came over the link from b.
func (w *Watch) Heard(b partition.Broker) {
	s := w.find(b)
	s.heard, s.hasLink = w.clock, true
}

// find returns what is known of b. One that is new counts as heard of now: its age
// begins with the watch.
func (w *Watch) find(b partition.Broker) *watched {
	for i := range w.brokers {
		if w.brokers[i].name == b {
			return &w.brokers[i]
		}
	}
	w.brokers = append(w.brokers, watched{name: b, moved: w.clock, heard: w.clock})
	return &w.brokers[len(w.brokers)-1]
}

// BeatAge implements partition.Peers.
func (w *Watch) BeatAge(b partition.Broker) int64 { return w.clock - w.find(b).moved }

// Silence implements partition.Peers.
func (w *Watch) Silence(b partition.Broker) int64 { return w.clock - w.find(b).heard }

// BusUp implements partition.Peers.
func (w *Watch) BusUp() int64 {
	if !w.busUp {
		return -1
	}
	return w.clock - w.busSince
}

// Brokers returns those that may hold partitions: they are there, for at least
// settle ms, and were gone for less than Gone.
func (w *Watch) Brokers(settle int64) []Candidate {
	var out []Candidate
	for i := range w.brokers {
		if s := &w.brokers[i]; s.there && w.clock-s.moved < Gone && w.clock-s.since >= settle {
			out = append(out, Candidate{Name: s.name, Beat: s.beat})
		}
	}
	return out
}
