// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"testing"
	"time"

	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/policy"
)

// TestInstallation_Rests: a folder is followed when it rests. While it is being written a
// part of it may be a good policy, that refuses nothing.
func TestInstallation_Rests(t *testing.T) {
	whole := policy.Source{
		"quota.rego":     "package quota\n\nlimits.devices := 5",
		"admission.rego": "package admission\n\ndeny contains \"no\" if input.operation == \"x\"",
	}
	part := policy.Source{"quota.rego": whole["quota.rego"]}
	other := maps.Clone(whole)
	other["quota.rego"] = "package quota\n\nlimits.devices := 6"
	broken := policy.Source{"quota.rego": "package quota\n\nlimits.devices := "}

	var looks []policy.Source // the last one stays
	i, err := OpenInstallation(t.Context(), InstallationConfig{Log: telemetry.Discard(), Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	i.cfg.Dir, i.read = "folder", func(string) (policy.Source, error) {
		s := looks[0]
		looks = looks[min(1, len(looks)-1):]
		return s, nil
	}
	for _, x := range []struct {
		name            string
		looks           []policy.Source
		changed, admits bool
	}{
		{"the first", []policy.Source{whole}, true, true},
		{"the same", []policy.Source{whole}, false, true},
		{"a part, of what is being written", []policy.Source{part, other}, false, true},
		{"which rests then", []policy.Source{other}, true, true},
		{"broken", []policy.Source{broken}, false, true},
		{"still broken", []policy.Source{broken}, false, true},
		{"as before", []policy.Source{other}, true, true},
		{"a part, which rests", []policy.Source{part}, true, false},
	} {
		looks = x.looks
		if changed := i.follow(t.Context()); changed != x.changed || i.Admits() != x.admits {
			t.Errorf("%s: changed %v, admits %v", x.name, changed, i.Admits())
		}
	}
	// What could not be followed is tried again, though it has not changed.
	looks = []policy.Source{broken}
	i.follow(t.Context())
	first := i.again
	i.again = time.Now().Add(-time.Second)
	if i.follow(t.Context()); first.IsZero() || !i.again.After(first) {
		t.Errorf("tried at %v, and again at %v", first, i.again)
	}
}
