// SPDX-License-Identifier: Apache-2.0

package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy"
)

// quotaTests are the tests of each quota that is held: the package below the module, the
// test, and its row or case if the test has a table with that name in it. one is on a
// single node, many where several brokers have a part of what counts. Rows of TestQuotas, and
// those of TestSettings that are quotas, are held in a region of processes too: see
// TestQuotas_Region and make quotas-region.
var quotaTests = map[string]struct{ one, many string }{
	"connections":           {one: "gateway TestTenantQuotaOfConnections"},
	"connect_rate":          {one: "gateway TestConnectRates connect_rate"},
	"connect_rate_client":   {one: "gateway TestConnectRates connect_rate_client"},
	"publish_rate":          {one: "gateway TestRateOfAClient publish_rate"},
	"publish_rate_client":   {one: "gateway TestRateOfAClient publish_rate_client"},
	"delivery_rate":         {one: "gateway TestDeliveryRate", many: "services/cmd/manor TestQuotas_Region delivery_rate"},
	"bytes_in_rate":         {one: "gateway TestRateOfAClient bytes_in_rate"},
	"bytes_out_rate":        {one: "gateway TestRateOut bytes_out_rate"},
	"bytes_in_rate_client":  {one: "gateway TestRateOfAClient bytes_in_rate_client"},
	"bytes_out_rate_client": {one: "gateway TestRateOut bytes_out_rate_client"},
	"packet_size":           {one: "services/cmd/manor TestSettings packet_size"},
	"topic_length":          {one: "services/cmd/manor TestQuotas topic_length"},
	"topic_levels":          {one: "services/cmd/manor TestSettings topic_levels"},
	"topic_level_length":    {one: "services/cmd/manor TestQuotas topic_level_length"},
	"topic_alias_maximum":   {one: "services/cmd/manor TestQuotas topic_alias_maximum"},
	"receive_maximum":       {one: "services/cmd/manor TestQuotas receive_maximum"},
	"subscriptions_client":  {one: "services/cmd/manor TestSettings subscriptions_client"},
	"subscriptions_request": {one: "services/cmd/manor TestQuotas subscriptions_request"},
	"subscriptions":         {"services/cmd/manor TestQuotas subscriptions", "services/broker/shard TestWide_QuotaSubscriptions"},
	"shared_groups":         {"services/cmd/manor TestQuotas shared_groups", "services/broker/shard TestWide_QuotaSharedGroups"},
	"shared_group_members":  {"services/cmd/manor TestQuotas shared_group_members", "services/broker/shard TestWide_QuotaSharedGroups"},
	"fan_out":               {"services/cmd/manor TestQuotas fan_out", "services/broker/shard TestWide_QuotaFanOut"},
	"persistent_sessions":   {"services/cmd/manor TestQuotas persistent_sessions", "services/broker/shard TestWide_QuotaStorage"},
	"session_expiry":        {one: "services/cmd/manor TestSettings session_expiry"},
	"queue_messages":        {one: "services/cmd/manor TestSettings queue_messages"},
	"queue_bytes":           {one: "services/cmd/manor TestQuotas queue_bytes"},
	"storage_bytes":         {"services/cmd/manor TestQuotas storage_bytes", "services/broker/shard TestWide_QuotaStorage"},
	"retained_messages":     {"services/cmd/manor TestQuotas retained_messages", "services/broker/shard TestWide_QuotaRetained"},
	"retained_bytes":        {"services/cmd/manor TestQuotas retained_bytes", "services/broker/shard TestWide_QuotaRetained"},
	"retained_rate":         {"services/cmd/manor TestQuotas retained_rate", "services/broker/shard TestWide_QuotaRetained"},
	"retained_subscribe":    {"services/cmd/manor TestQuotas retained_subscribe", "services/broker/shard TestWide_QuotaRetained"},
	"keep_alive_minimum":    {one: "services/cmd/manor TestQuotas keep_alive_minimum"},
	"keep_alive_maximum":    {one: "services/cmd/manor TestQuotas keep_alive_maximum"},
	"will_delay":            {one: "services/cmd/manor TestSettings will_delay"},
	"will_size":             {one: "services/cmd/manor TestQuotas will_size"},
	"wildcard_root":         {one: "services/cmd/manor TestQuotas wildcard_root"},
	"devices":               {one: "services/api TestDevices devices"},
	"credentials":           {one: "services/api TestCredentials"},
	"client_cas":            {one: "services/api TestClientCAs client_cas"},
	"grants":                {one: "services/api TestPolicies_Refused grants"},
	"policy_bytes":          {one: "services/api TestPolicies_Refused policy_bytes"},
	"policy_time_ms":        {one: "tenancy/policy TestGrants_Time policy_time_ms"},
	"api_rate":              {one: "services/api TestQuota_APIRate api_rate"},
	"tenants":               {one: "services/api TestQuota_Tenants tenants"},
	"members":               {one: "services/api TestMembers"},
	"api_keys":              {one: "services/api TestAPIKeys"},
	"domains":               {one: "services/api TestDomains domains"},
	"event_days":            {one: "tenancy/events TestQuota_EventDays"},
	"audit_days":            {one: "tenancy/audit TestLog_Prune"},
}

// together are the quotas of which brokers of a cluster each have a part.
var together = []string{
	"subscriptions", "shared_groups", "shared_group_members", "fan_out", "persistent_sessions", "storage_bytes",
	"retained_messages", "retained_bytes", "retained_rate", "retained_subscribe",
}

// uncounted are the quotas of what there is not yet.
var uncounted = []string{"webhooks", "sinks", "rules", "bridges", "traces", "backups"}

// A quota is held and has tests, or what it counts does not exist.
func TestEnforcement(t *testing.T) {
	for name := range enforcement {
		if !slices.Contains(tenancy.QuotaNames(), name) {
			t.Errorf("%s is enforced and no quota", name)
		}
	}
	for name := range quotaTests {
		if enforcement[name] == "" {
			t.Errorf("%s has tests and is not said to be enforced", name)
		}
	}
	sources := map[string]*testSources{}
	for _, name := range tenancy.QuotaNames() {
		tests, ok := quotaTests[name]
		switch {
		case slices.Contains(uncounted, name) == (enforcement[name] != ""):
			t.Errorf("%s: expected to be enforced, or among those that count what there is not", name)
		case enforcement[name] == "":
			continue
		case !ok || tests.one == "" || tests.many == "" && slices.Contains(together, name):
			t.Errorf("%s is said to be enforced, and quotaTests does not name its tests", name)
		}
		for _, test := range []string{tests.one, tests.many} {
			if f := strings.Fields(test); len(f) > 0 {
				if sources[f[0]] == nil {
					sources[f[0]] = readTests(t, f[0])
				}
				if !slices.Contains(sources[f[0]].funcs, f[1]) {
					t.Errorf("%s: there is no test %s in %s", name, f[1], f[0])
				}
				if len(f) > 2 && !sources[f[0]].strings[f[2]] {
					t.Errorf("%s: no test of %s has a row %q", name, f[0], f[2])
				}
			}
		}
	}
}

// testSources are what the tests of a package say.
type testSources struct {
	funcs   []string
	strings map[string]bool
}

func readTests(t *testing.T, dir string) *testSources {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	s := &testSources{strings: map[string]bool{}}
	for _, name := range files {
		if dir == "services/api" && filepath.Base(name) == "quotas_test.go" {
			continue // this table
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				s.funcs = append(s.funcs, n.Name.Name)
			case *ast.BasicLit:
				if v, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					s.strings[v] = true
				}
			}
			return true
		})
	}
	return s
}
