// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/manormq/manor/services/broker/partition"
)

// Tally counts what has happened in a world, or in several, by its kind: a world that promises much and in
// which nothing happens shows nothing.
type Tally map[string]int

// Add adds what another one has counted.
func (t Tally) Add(o Tally) {
	for kind, n := range o {
		t[kind] += n
	}
}

// Missing are those of some kinds that never happened, in their order.
func (t Tally) Missing(kinds []string) []string {
	return slices.DeleteFunc(slices.Clone(kinds), func(kind string) bool { return t[kind] > 0 })
}

func (t Tally) String() string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(t)) {
		all = append(all, fmt.Sprintf("%s %d", kind, t[kind]))
	}
	return strings.Join(all, ", ")
}

// happens counts something that is not in the trace.
func (w *World) happens(kind string) { w.tally[kind]++ }

// begins notes a fault, or a part of one, and counts it.
func (w *World) begins(kind string, who partition.Broker, args ...uint64) {
	w.happens(kind)
	w.note(kind, who, args...)
}

// The kinds that the worlds of CI must have had. A fault counts when it bites: a node that is stopped was
// up, and a message that a cut takes was sent.
var (
	damage = []string{
		"kill", "power cut", "disk loss", "split", "one way", "isolate", "flap", "message cut off", "message lost", "message doubled",
		"bus cut", "bus down", "bus flaky", "bus request cut off", "bus request lost", "bus answer lost", "slow disk", "clock jump",
		"drain", "joins", "pair", "exile", "siege", "ambush", "dark", "owner changed",
	}
	seedsKinds    = append([]string{"power cut takes what was not synced", "abandon", "roll back"}, damage...)
	sessionsKinds = append([]string{"last copy lost", "abandon"}, append(ofSessions, damage...)...)
	// What a tenant that moves was handed is lost with no disk: lose has none of these take the last copy.
	placedKinds   = append([]string{"placed", "stayed"}, append(ofSessions, damage...)...)
	expiringKinds = append([]string{"session expired"}, append(ofSessions, slices.DeleteFunc(slices.Clone(damage), func(k string) bool { return k == "clock jump" })...)...)
	// Most that goes wrong in a rough world is a plot, and CI has fewer of these worlds: single faults that they
	// have in common with the others are rare.
	roughKinds = append([]string{
		"changeling", "cornered", "crossfire", "usurped", "usurped and does not know", "heir", "departure", "leaves",
		"unsubscribed", "subscribed anew", "placed", "stayed", "kill", "power cut", "power cut takes what was not synced",
		"disk loss", "message cut off", "bus request cut off", "owner changed",
	}, ofSessions...)
	ofSessions = []string{
		"gateway crash", "break link", "link lost", "anew", "relabel", "ceded", "connection lost", "disconnect", "taken over",
		"connection moved", "session there again", "will", "sent again by the publisher",
	}
)
