// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/manormq/manor/infra/wire"
)

// sheet is a log that can be read while it is written.
type sheet struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (s *sheet) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *sheet) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.buf.String(), text)
}

// Brokers of three releases side by side: each pair speaks the highest version that both
// do, and the two that have none refuse each other and both say why.
func TestMesh_Versions(t *testing.T) {
	var logs [3]sheet
	of := func(i int, name string, v wire.Versions) *node {
		return startOf(t, name, Config{Versions: v, Log: slog.New(slog.NewTextHandler(&logs[i], nil))})
	}
	// The one in the middle is of this release, the others of the one before and the one after.
	n := Versions.Max
	older := of(0, "older", wire.Versions{Min: 1, Max: n - 1})
	now := of(1, "now", Versions)
	newer := of(2, "newer", wire.Versions{Min: n, Max: n + 1})
	all := map[string]string{"older": older.addr, "now": now.addr, "newer": newer.addr}
	for _, x := range []*node{older, now, newer} {
		x.mesh.SetPeers(all)
	}
	for _, pair := range [][2]*node{{now, older}, {older, now}, {now, newer}, {newer, now}} {
		pair[0].eventually("link to "+pair[1].name, func() bool { return pair[0].up[pair[1].name] })
	}
	for _, c := range []struct {
		at   *node
		to   string
		want uint8
	}{{now, "older", n - 1}, {older, "now", n - 1}, {now, "newer", n}, {newer, "now", n}, {older, "newer", 0}, {newer, "older", 0}} {
		if got := c.at.mesh.Version(c.to); got != c.want {
			t.Errorf("%s speaks version %d with %s, expected %d", c.at.name, got, c.to, c.want)
		}
	}
	for i, x := range []*node{older, nil, newer} {
		if x != nil {
			x.eventually("reason in the log", func() bool {
				return logs[i].has("no version that both nodes speak") && logs[i].has("update the older one")
			})
		}
	}
	if logs[1].has("no version") {
		t.Error("the one in the middle refuses somebody")
	}
}
