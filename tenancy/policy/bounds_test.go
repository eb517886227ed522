// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// What a policy makes is bounded before it is made: a builtin that makes too much would end
// the process of all tenants, or could not be interrupted.
func TestBuiltinsAreBounded(t *testing.T) {
	const k = `k := "0123456789012345678901234567890123456789012345678901234567890123"`
	const texts = k + "\n" + `t := concat("", [k | some _ in n]); n := split("01234567890123456789012345678901", "")`                    // 2 KiB
	const many = texts + "\n" + `a := [x | some _ in n; some x in n]; b := [x | some x in a; some _ in {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}]` // 10,240
	for name, c := range map[string]struct{ define, value, want string }{
		"sprintf with a width":        {"", `sprintf("%100000d", [1])`, "at most 1000"},
		"sprintf with a precision":    {"", `sprintf("%.100000f", [1.5])`, "at most 1000"},
		"sprintf with a star":         {"", `sprintf("%*d", [100000, 1])`, "found *"},
		"sprintf of one again":        {texts, `sprintf("` + strings.Repeat("%[1]s", 40) + `", [t])`, "65536 bytes"},
		"sprintf of one, flags":       {texts, `sprintf("` + strings.Repeat("%-[1]s", 40) + `", [t])`, "65536 bytes"},
		"template string":             {texts, `$"` + strings.Repeat("{t}", 40) + `"`, "65536 bytes"},
		"concat":                      {texts, `concat(t, [x | some x in n; x != "9"] )`, ""},
		"concat with a long between":  {texts, `concat(t, [y | some x in n; some z in n; y := concat("", [x, z])])`, "65536 bytes"},
		"concat, too long":            {texts, `concat(t, split(t, ""))`, "65536 bytes"},
		"replace":                     {texts, `replace(t, "0", t)`, "65536 bytes"},
		"replace of nothing":          {texts, `replace(t, "", t)`, "65536 bytes"},
		"replace_n":                   {texts, `strings.replace_n({"0": t}, t)`, "65536 bytes"},
		"regex.replace":               {texts, `regex.replace(t, "[0-9]", t)`, "65536 bytes"},
		"regex.replace of itself":     {texts, `regex.replace(t, "(.*)", "` + strings.Repeat("$1", 50) + `")`, "65536 bytes"},
		"submatches":                  {texts, `regex.find_all_string_submatch_n("` + strings.Repeat("()", 50) + `", t, -1)`, "10000 elements"},
		"a regex of many repetitions": {texts, `regex.match("` + strings.Repeat("(a?){1000}", 90) + `", t)`, "times the text's"},
		"array.concat":                {many, `array.concat(b, b)`, "10000 elements"},
		"pairs":                       {many, `net.cidr_contains_matches(a, a)`, "10000 elements"},
		"json.marshal":                {many, `json.marshal(b)`, "10000 elements"},
		"a number of many digits":     {"", `1e900 * 1e900`, "400 digits"},
		"a number read":               {"", `json.unmarshal("1e900") + 1`, "400 digits"},
		"rounded":                     {"", `round(1e900)`, "400 digits"},
		"written out":                 {doubled(12), `json.marshal(d12)`, "10000 elements"},
		"printed to a text":           {doubled(12), `sprintf("%v", [d12])`, "10000 elements"},
		"compared":                    {doubled(12), `d12 < [d12]`, "10000 elements"},
		"a result":                    {doubled(40), `{"allow": true, "class": d40}`, "written out"},
		"walk of what is deep":        {"", `count([p | walk(json.unmarshal("` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `"), [p, _])])`, "64 levels"},
		"sprintf that is well":        {"", `sprintf("%-8s|%05d|%v|%%", ["a", 7, {"x": 1}])`, ""},
		"many small":                  {many, `count([y | some x in a; y := sprintf("%s/%s", [x, x])])`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			source := "package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": \"#\"}\n\n" + strings.ReplaceAll(c.define, "; n :=", "\n\nn :=") + "\n\n"
			source = strings.ReplaceAll(source, "; b :=", "\n\nb :=")
			value := c.value
			if !strings.HasPrefix(value, "{") {
				value = `{"allow": true, "reason": json.marshal(` + value + `)}`
			}
			p, err := policy.Compile(t.Context(), policy.Source{"policy.rego": source + "connect := " + value + "\n"}, limits)
			if err != nil {
				if c.want == "" || !strings.Contains(err.Error(), c.want) {
					t.Fatal(err)
				}
				return
			}
			got := p.Admit(t.Context(), policy.TenantInput{}, &tenancy.Arrival{})
			if c.want == "" && (!got.Allow || got.Why != "") || c.want != "" && (got.Allow || !strings.Contains(got.Why, c.want)) {
				t.Errorf("answered %.300v, expected %q", got, c.want)
			}
		})
	}
}

// doubled defines d1 to dn, each of which has the one before twice: small in memory,
// 2^n elements written out.
func doubled(n int) string {
	var b strings.Builder
	b.WriteString("d0 := [1]\n")
	for i := range n {
		d := "d" + strconv.Itoa(i)
		b.WriteString("\nd" + strconv.Itoa(i+1) + " := [" + d + ", " + d + "]\n")
	}
	return b.String()
}
