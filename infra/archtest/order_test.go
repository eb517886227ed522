// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed order.txt
var orderText string

const module = "github.com/manormq/manor/"

// pkg is what go list says of a package.
type pkg struct {
	Dir, ImportPath, Name string
	Imports               []string
	GoFiles               []string
}

func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

// list runs go list at the root of the module. Packages that do not build now
// are listed all the same: their imports are read from their text.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=Dir,ImportPath,Name,Imports,GoFiles"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func parse(t *testing.T, text string) *Order {
	t.Helper()
	o, err := ParseOrder(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOrder_Imports(t *testing.T) {
	o := parse(t, orderText)
	for _, p := range list(t, "./...") {
		for _, dep := range p.Imports {
			if rel, ours := strings.CutPrefix(dep, module); ours {
				if err := o.Check(p.path(), rel); err != nil {
					t.Error(err)
				}
			}
		}
		if o.room(p.path()) == "" && !testOnly(p.path()) {
			t.Errorf("%s has no place in order.txt", p.path())
		}
	}
}

func TestOrder_RefusesWhatGoesUp(t *testing.T) {
	o := parse(t, orderText)
	for _, c := range []struct{ pkg, dep, why string }{
		{"infra/mqtt", "tenancy", "not below"},
		{"infra/mqtt", "infra/packet", "not below"},
		{"infra/topic", "infra/kv", "not below"},
		{"tenancy", "billing/meter", "!~"},
		{"gateway/conn", "services/broker/session", "!~"},
		{"gateway/conn", "gateway", "not below"},
		{"gateway/conn", "gateway/listener", "not below"},
		{"services/broker/shard", "gateway/uplink", "!~"},
		{"services/broker", "infra/packet", "!~"},
		{"services/broker", "tenancy/directory", "!~"},
		{"services/broker/session", "infra/kv", "!~"},
		{"services/broker/session", "services/broker/shard", "not below"},
		{"services/api", "services/cmd/manor", "not below"},
		{"infra/kv", "infra/kv/kvtest", "for tests"},
		{"infra/nowhere", "infra/mqtt", "no place"},
		{"tenancy", "elsewhere", "no place"},
	} {
		if err := o.Check(c.pkg, c.dep); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s -> %s: %v, want an error with %q", c.pkg, c.dep, err, c.why)
		}
	}
	for _, c := range [][2]string{
		{"infra/link", "infra/mqtt"},
		{"infra/kv/leveldb", "infra/kv"},
		{"tenancy/directory", "tenancy"},
		{"gateway", "gateway/conn"},
		{"gateway/conn", "infra/packet"},
		{"services/broker", "infra/kv/leveldb"},
		{"services/cmd/manor", "services/api"},
		{"services/cmd/manor", "infra/bus/embed"},
	} {
		if err := o.Check(c[0], c[1]); err != nil {
			t.Errorf("%s -> %s: %v, want nil", c[0], c[1], err)
		}
	}
}

func TestParseOrder_RefusesCircles(t *testing.T) {
	for _, text := range []string{"a < b < a", "a < b\nb < c\nc < a", "a, < b"} {
		if _, err := ParseOrder(text); err == nil {
			t.Errorf("ParseOrder(%q) gave no error", text)
		}
	}
}

// linkBans names, for each main, what it must not contain. database/sql itself
// comes with the Prometheus client; its drivers must not.
var linkBans = map[string][]string{
	"gatewayd": {
		"github.com/syndtr/goleveldb", "github.com/open-policy-agent/", "github.com/stripe/", "github.com/nats-io/nats-server",
		"github.com/jackc/", "github.com/lib/pq", "github.com/go-sql-driver/", "modernc.org/sqlite", "go.mongodb.org/", "github.com/redis/",
		"github.com/caddyserver/", "github.com/mholt/acmez", module + "services/broker",
	},
	"brokerd": {
		"github.com/open-policy-agent/", "github.com/stripe/", "github.com/nats-io/nats-server",
		"github.com/jackc/", "github.com/lib/pq", "github.com/go-sql-driver/", "modernc.org/sqlite", "go.mongodb.org/", "github.com/redis/",
		"github.com/caddyserver/", "github.com/mholt/acmez", module + "gateway", module + "infra/packet",
	},
}

func TestLinks(t *testing.T) {
	for main, bans := range linkBans {
		deps := list(t, "-deps", "./services/cmd/"+main)
		if len(deps) < 50 {
			t.Errorf("%s has %d dependencies: it is not there", main, len(deps))
		}
		for _, p := range deps {
			for _, ban := range bans {
				if strings.HasPrefix(p.ImportPath, ban) {
					t.Errorf("%s links %s, which it must not (%s)", main, p.ImportPath, ban)
				}
			}
		}
	}
}
