// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/member"
)

// Of a tenant that moves, of whose first partition the owner is away, the first broker that is alive
// says what is waited for, each 10 s, and no other does.
func TestOrphans(t *testing.T) {
	for _, x := range []struct {
		name, self, owner string
		away              string // the names of those that are not alive
		says              bool
	}{
		{"the owner is away", "b", "a", "a", true},
		{"the owner is away, and another one is before this", "c", "a", "a", false},
		{"the owner and the first are away", "c", "b", "ab", true},
		{"the owner is alive", "a", "b", "", false},
		{"there is no owner", "a", "", "", true},
		{"the owner is no member any more", "a", "x", "", true},
	} {
		t.Run(x.name, func(t *testing.T) {
			var all []member.Member
			for _, name := range []string{"a", "b", "c"} {
				m := member.Member{Name: name, State: member.Alive}
				if strings.Contains(x.away, name) {
					m.State = member.Suspected
				}
				all = append(all, m)
			}
			var out bytes.Buffer
			o, now := orphans{}, time.Unix(1000, 0)
			for range 25*100 + 1 { // looks of 10 ms, 25 s of them
				o.look(slog.New(slog.NewTextHandler(&out, nil)), x.self, all, "acme", 5, x.owner, now)
				now = now.Add(moverTick)
			}
			want := 0
			if x.says {
				want = 2
			}
			if n := strings.Count(out.String(), "nothing is decided"); n != want {
				t.Errorf("it is said %d times in 25 s, expected %d: %s", n, want, &out)
			}
			if x.says && !strings.Contains(out.String(), "partition 5") {
				t.Errorf("it is not said what is waited for: %s", &out)
			}
			if x.says { // and no more when the owner is back
				out.Reset()
				for i := range all {
					all[i].State = member.Alive
				}
				if x.owner == "a" || x.owner == "b" {
					o.look(slog.New(slog.NewTextHandler(&out, nil)), x.self, all, "acme", 5, x.owner, now.Add(moverSays))
					if out.Len() > 0 || len(o) > 0 {
						t.Errorf("the owner is back: %s", &out)
					}
				}
			}
		})
	}
}
