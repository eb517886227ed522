// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

var timingTries = flag.Int("timing-tries", 10, "refused sign-ins of each kind whose times are compared, with passwords that are new; and twenty times as many with one that is not")

// How far the medians of known and unknown names may be apart. A hash takes 30 ms, a
// refusal without one a hundredth of that.
const (
	timingFactor = 2.0
	timingRounds = 3
)

// byTiming signs in with names that are known and names that are not, in turn: what
// is said is the same, and how long it takes does not tell which.
func (s *siege) byTiming(t *testing.T) {
	email := "ops@test.example" // of the sign-ups
	var fails sync.Map
	signIn := func(organization, email string) func(password string) {
		return func(password string) {
			a := s.ask(t, nil, http.MethodPost, "/v1/auth/token", map[string]any{"organization": organization, "email": email, "password": password})
			a.want(t, http.StatusUnauthorized)
			if first, ok := fails.LoadOrStore("api", string(a.body)); ok && first != string(a.body) {
				t.Errorf("the answer tells names apart: %s and %s", first, a.body)
			}
		}
	}
	connect := func(user string) func(password string) {
		return func(password string) {
			o := login{user, password}.as(s.attacker.options("timing"))
			got, err := greet(s.dial(t, s.attacker.gateway.Addr("mqtt"), nil), o)
			denied(t, user, got, err, mqtt.BadUserNameOrPassword)
		}
	}
	for door, kinds := range map[string]map[string]func(string){
		"API":  {"known": signIn(s.victim.organization, email), "unknown": signIn(s.victim.organization, "nobody@test.example"), "unknown organization": signIn("org_nobody", email)},
		"MQTT": {"known, chosen": connect("victim:" + jewel + "-press"), "known, generated": connect("victim:default"), "unknown": connect("victim:nobody"), "unknown tenant": connect("nobody:default")},
	} {
		for what, c := range map[string]struct {
			n        int
			password func(k int) string
		}{
			"new passwords":     {*timingTries, func(k int) string { return fmt.Sprint("wrong-", time.Now().UnixNano(), "-", k) }},
			"the same password": {*timingTries * 20, func(int) string { return "wrong-again" }},
		} {
			told := ""
			for range timingRounds {
				if told = compareTimes(kinds, c.n, c.password); told == "" {
					break
				}
			}
			if told != "" {
				t.Errorf("%s, %s: the time tells names apart, %d times: %s", door, what, timingRounds, told)
			}
		}
	}
}

// compareTimes has each kind tried n times, in turn, and says how the medians are
// apart; empty if they are not by more than timingFactor.
func compareTimes(kinds map[string]func(password string), n int, password func(k int) string) string {
	took := map[string][]time.Duration{}
	for k := range n {
		for kind, try := range kinds { // in an order that differs each time
			p := password(k)
			start := time.Now()
			try(p)
			took[kind] = append(took[kind], time.Since(start))
		}
	}
	var names []string
	least, most := time.Hour, time.Duration(0)
	for kind, all := range took {
		slices.Sort(all)
		median := all[len(all)/2]
		least, most = min(least, median), max(most, median)
		names = append(names, fmt.Sprintf("%s %v", kind, median))
	}
	if float64(most) <= timingFactor*float64(least) {
		return ""
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
