// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestLoginsCost_Table(t *testing.T) {
	l := LoginsCost{Runs: 3, N: 1000, Peer: "mosquitto"}
	var out strings.Builder
	l.table(&out, []string{byNothing, byPassword, byJWT}, []map[string][]loginCost{
		{byNothing: {{90, 900}, {100, 1000}, {300, 1100}}, byPassword: {{30_000, 30}}, byJWT: {{250, 4}}},
		{byNothing: {{50, 0}}, byPassword: {{0, 0}}},
	})
	want := `
                           n    cpu µs /s and core  connects/s anonymous | mosquitto /s and core anonymous   ratio
anonymous               1000       100       10000        1000    1.00 x |      50.0       20000    1.00 x    2.00
password-first            16     30000        33.3        30.0     300 x |         -           -         -       -
jwt-first                500       250        4000        4.00    2.50 x |         -           -         -       -
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%s", got)
	}
}

func TestLoginsCost_Invalid(t *testing.T) {
	for name, l := range map[string]LoginsCost{
		"no runs":        {Runs: 0, N: 1000, AtOnce: 1},
		"too few":        {Runs: 1, N: 99, AtOnce: 1},
		"none at once":   {Runs: 1, N: 1000},
		"unknown method": {Runs: 1, N: 1000, AtOnce: 1, Only: "anonymous,magic"},
	} {
		if err := l.Run(t.Context(), &strings.Builder{}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, expected it to be invalid", name, err)
		}
	}
	if err := (Checks{Runs: 1}).Run(t.Context(), &strings.Builder{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("checks: %v, expected it to be invalid", err)
	}
}

func TestAuthData(t *testing.T) {
	good := string(appendAuthProperties(nil, "r=1,s=2"))
	for properties, want := range map[string]string{
		good: "r=1,s=2", string(appendAuthProperties(nil, "")): "", "": "", "\x00": "", good[:8]: "", "\x04\x1f\x00\x01x": "",
	} {
		if got := authData([]byte(properties)); got != want {
			t.Errorf("%q: %q, expected %q", properties, got, want)
		}
	}
}
