// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/metadata"
)

// Setting is a value that holds for all brokers of a cluster, and is applied by each
// as soon as it hears of it.
type Setting struct {
	Name string
	// Value is that in force, Set whether somebody has said it.
	Value int
	Set   bool
	// Least and Most are what it may be; Doc says what it does.
	Least, Most int
	Doc         string
}

// setting is a row of the table of settings.
type setting struct {
	name        string
	least, most int
	standard    func(*Config) int
	doc         string
}

var (
	settingReplicas = setting{
		"replicas", 1, MostReplicas, func(c *Config) int { return c.Replicas },
		"brokers that hold a partition of which nobody has said how many; by default broker.cluster.replicas of each broker",
	}
	settingMoves = setting{
		"moves", 1, 64, func(c *Config) int { return min(max(4, c.Partitions/64), 64) },
		"partitions of each owner that may be copied to other brokers at once; by default 4, and a 64th of the region's partitions where those are more than 256",
	}
	settingCatchUp = setting{
		"catch_up_mib", 1, 4096, func(*Config) int { return 64 },
		"MiB a second that each broker reads for replicas that are made or catch up",
	}
)

func settings() []*setting {
	return []*setting{&settingCatchUp, &settingMoves, &settingReplicas}
}

func (l *Layout) setSetting(name string, i *metadata.Item[int]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i == nil {
		delete(l.mu.settings, name)
		return
	}
	l.mu.settings[name] = i.Value
}

// settingLocked is the value in force; one that a later version allows and this one
// does not counts as not said.
func (l *Layout) settingLocked(s *setting) int {
	if v, ok := l.mu.settings[s.name]; ok && v >= s.least && v <= s.most {
		return v
	}
	return s.standard(&l.config)
}

func (l *Layout) setting(s *setting) int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.settingLocked(s)
}

// Moves is how many partitions of an owner may be on the move at once.
func (l *Layout) Moves() int { return l.setting(&settingMoves) }

// CatchUp is how many bytes a second a broker reads for replicas that catch up.
func (l *Layout) CatchUp() int { return l.setting(&settingCatchUp) << 20 }

// Settings are all settings, in the order of their names.
func (l *Layout) Settings() (out []Setting) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range settings() {
		_, set := l.mu.settings[s.name]
		out = append(out, Setting{Name: s.name, Value: l.settingLocked(s), Set: set, Least: s.least, Most: s.most, Doc: s.doc})
	}
	return out
}

// Set says the value of a setting, "default" for none. It returns when that is durable
// and the brokers that can be reached have it, or with ctx. The error is NotFound, Invalid or
// Unavailable.
func (l *Layout) Set(ctx context.Context, name, value string) error {
	var names []string
	for _, s := range settings() {
		names = append(names, s.name)
		if s.name != name {
			continue
		}
		if value == "default" {
			return l.write(ctx, []metadata.Mutation{l.settings.Delete(name, 0)})
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < s.least || n > s.most {
			return errs.New(errs.Invalid, "%s: expected a number from %d to %d, or default, found %q", name, s.least, s.most, value)
		}
		return l.write(ctx, []metadata.Mutation{l.settings.Put(name, n, 0)})
	}
	return errs.New(errs.NotFound, "there is no setting %q; expected one of: %s", name, strings.Join(names, ", "))
}
