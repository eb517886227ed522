// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/operate"
)

// stage is a cluster of two brokers, of which b2 needs some looks until it is drained.
type stage struct {
	mu    sync.Mutex
	looks int // until b2 is drained, once it drains
	drain bool
	left  []string
	query operate.SessionQuery
}

func (s *stage) Self() string { return "b1" }

func (s *stage) Members() []operate.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain && s.looks > 0 {
		s.looks--
	}
	two := operate.Member{Name: "b2", State: "alive", Draining: s.drain, Since: time.Unix(0, 0)}
	if s.looks > 0 {
		two.Owned, two.Followed = 3, 1
	}
	return []operate.Member{{Name: "b1", State: "alive", Owned: 4, Since: time.Unix(0, 0)}, two, {Name: "b3", State: "down", Since: time.Unix(0, 0)}}
}

func (s *stage) Nodes(context.Context) map[string]operate.Node {
	return map[string]operate.Node{"b1": {NumOnline: 12, Problems: []string{"the store refuses writes"}}, "b2": {}}
}

func (s *stage) Partitions(context.Context) ([]operate.Partition, error) {
	return []operate.Partition{{ID: 0, Owner: "b3", InSync: []string{"b3"}, State: operate.Unserved, Replicas: 2}}, nil
}

func (s *stage) Copies(context.Context, int) ([]operate.Copy, error) { return nil, nil }

func (s *stage) Sessions(_ context.Context, q operate.SessionQuery) ([]operate.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.query = q
	return []operate.Session{{"client_id": "pump", "is_online": true}}, nil
}

func (s *stage) Drain(_ context.Context, _ string, undo bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain = !undo
	return nil
}

func (s *stage) Leave(_ context.Context, node string, _ bool) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, node)
	return nil, nil
}

func (s *stage) Token(_ context.Context, ttl time.Duration, node string) (string, error) {
	return fmt.Sprint("token for ", node, " for ", ttl), nil
}

func (s *stage) Abandon(context.Context, int) (operate.Copy, error) {
	return operate.Copy{}, errs.New(errs.Conflict, "b3 will serve it by itself")
}

func (s *stage) SetClass(_ context.Context, ids []int, label string, replicas int) error {
	if label == "gold" {
		return errs.New(errs.Conflict, "no broker that is there accepts the label gold")
	}
	return nil
}

func (s *stage) Placements() []operate.Placement {
	return []operate.Placement{{Tenant: "acme", Partitions: []int{60, 61}, Revision: 2, Placed: true}, {Tenant: "was", Revision: 3, Purged: true}}
}

func (s *stage) Place(_ context.Context, tenant string, to operate.Place) (operate.Placement, error) {
	if to.Label != "" {
		to.Partitions = []int{62}
	}
	for p := range to.Grow {
		to.Partitions = append(to.Partitions, p)
	}
	return operate.Placement{Tenant: tenant, Partitions: to.Partitions, Revision: 2, Placed: true}, nil
}

func (s *stage) Progress(context.Context, string) operate.Progress { return operate.Progress{} }

func (s *stage) Settings() []operate.Setting {
	return []operate.Setting{{Name: "moves", Value: 4, Least: 1, Most: 64}}
}

func (s *stage) Set(_ context.Context, name, value string) error {
	return errs.New(errs.Invalid, "%s: expected a number, found %q", name, value)
}

func TestAdmin(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
		left string
	}{
		{"cluster show", 0, "b2    true     alive", ""},
		{"cluster show --format=json", 0, `"Node": "b1"`, ""},
		{"cluster show -o json", 0, `"type": "table"`, ""},
		{"cluster show --format=xml", 2, "expected human or json", ""},
		{"cluster drain --node b2", 0, "b2 is drained", ""},
		{"cluster drain --node b2 --undo", 0, "b2 takes partitions again", ""},
		{"cluster drain --node b2 -t 0", 1, "b2 is draining after 0 s: it owns 3 partitions and follows 1", ""},
		{"cluster drain", 2, "expected --node", ""},
		{"cluster drain --node b9", 1, "expected one of: b1, b2, b3", ""},
		{"cluster leave node=b2", 0, "b2 is no member any more", "b2"},
		{"cluster leave --node b2 -k -i 1 -t 60", 0, "b2 is no member any more", "b2"},
		{"cluster leave --node b3", 1, "cluster leave --node b3 --force", ""},
		{"cluster leave --node b3 --force", 0, "b3 is no member any more", "b3"},
		{"cluster leave nod=b2", 2, "expected node=", ""},
		{"cluster rebalance", 0, "0 of 1 partitions are where they should be", ""},
		{"cluster upgrade-check", 0, "not all brokers are alive", ""},
		{"cluster join discovery-node=b1", 0, "joins by being started", ""},
		{"node status", 0, "num_online         12      0", ""},
		{"node status", 0, "b1: the store refuses writes", ""},
		{"node status --node b3", 1, "b3 is down and does not answer", ""},
		{"session show --client_id --is_online=true --limit 5", 0, "client_id\npump", ""},
		{"session show --limit 5000", 2, "expected 1 to 1000", ""},
		{"partition show", 0, "0          unserved  b3", ""},
		{"partition show 7", 1, "there are the partitions 0 to 0", ""},
		{"partition show --state in_sync", 0, "(none)", ""},
		{"partition abandon 0", 2, "repeat with --yes", ""},
		{"partition abandon 0 --yes", 1, "b3 will serve it by itself", ""},
		{"partition abandon", 2, "accepts 1 arg(s)", ""},
		{"partition label 60-61 acme --replicas 2", 0, "the partitions 60-61 are for brokers that accept the label acme", ""},
		{"partition label 60-61 gold", 1, "no broker that is there accepts the label gold", ""},
		{"partition label 60-61", 2, "accepts 2 arg(s)", ""},
		{"tenant show", 0, "acme    60-61       operator  2", ""},
		{"tenant show", 0, "purged tenants of which a record stays, whose revision only grows: 1", ""},
		{"tenant show --purged", 0, "was     none, or as its plan has it if it was made again  purge     3", ""},
		{"tenant show nobody", 0, "nobody has no record", ""},
		{"tenant place new --partitions 62-63", 0, "new     62-63       operator  2", ""},
		{"tenant place new --dedicated gold", 0, "new     62          operator  2", ""},
		{"tenant place new --grow 3", 0, "new     0-2         operator  2", ""},
		{"tenant place new --shared", 0, "as its plan has it", ""},
		{"tenant place new", 2, "expected one of --partitions LIST", ""},
		{"cluster config show", 0, "moves  4      default", ""},
		{"cluster config set moves many", 2, "expected a number", ""},
		{"nonsense", 2, "unknown command", ""},
	} {
		s := &stage{looks: 4}
		server := httptest.NewServer(operate.Handler(s))
		t.Setenv(operatorEnv, server.URL)
		out, code := run(append([]string{"admin"}, strings.Fields(c.args)...)...)
		server.Close()
		if code != c.code || !strings.Contains(out, c.want) || strings.Join(s.left, " ") != c.left {
			t.Errorf("manor admin %s: exit code %d, left %v, want %d with %q in\n%s", c.args, code, s.left, c.code, c.want, out)
		}
	}
}

// A listener that is not there, or not that of a broker, is named.
func TestAdmin_Elsewhere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	if out, code := run("admin", "--operator", server.URL, "cluster", "show"); code != 1 || !strings.Contains(out, "is it that of a broker?") {
		t.Errorf("%d %s", code, out)
	}
	server.Close()
	if out, code := run("admin", "--operator", strings.TrimPrefix(server.URL, "http://"), "cluster", "show"); code != 1 || !strings.Contains(out, "expected a broker's operator listener at "+server.URL) {
		t.Errorf("%d %s", code, out)
	}
}
