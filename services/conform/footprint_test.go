// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/manormq/manor/services/bench"
)

// manor bench memory makes sessions, subscriptions and retained messages at brokers
// over their links, alone and with followers, and says what each costs on disk.
func TestBenchMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	var out strings.Builder
	f := bench.Footprint{Program: filepath.Join(Programs(t, built), "manor"), Sessions: 2000, Payload: 10, Brokers: "1,2"}
	if err := f.Run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`1 +1 +session `, `1 +1 +subscription `, `1 +1 +retained message `, `2 +2 +session `, ` its follower `} {
		if !regexp.MustCompile(`(?m)^ *` + line + `.*\d$`).MatchString(out.String()) {
			t.Errorf("no line like %q in\n%s", line, out.String())
		}
	}
}
