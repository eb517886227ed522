// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// What the account would say of a broker that breaks a promise.
func TestAccount(t *testing.T) {
	for _, c := range []struct {
		name    string
		numbers []int
		qos     mqtt.QoS
		wrong   string // what is said of the last of them
		missing int    // of 0 to 3
	}{
		{name: "all in order", numbers: []int{0, 1, 2, 3}, qos: 2},
		{name: "a number that was refused", numbers: []int{0, 1, 3}, qos: 2, missing: 1},
		{name: "twice at QoS 1", numbers: []int{0, 1, 0, 1, 2, 3, 2}, qos: 1},
		{name: "twice at QoS 2", numbers: []int{0, 1, 2, 3, 3}, qos: 2, wrong: "came 2 times at QoS 2"},
		{name: "out of order at QoS 1", numbers: []int{0, 2, 3, 1}, qos: 1, wrong: "number 1 came first after 3"},
		{name: "out of order at QoS 2", numbers: []int{1, 0}, qos: 2, wrong: "number 0 came first after 1", missing: 2},
		{name: "nothing came", qos: 1, missing: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &account{highest: -1}
			wrong := ""
			for _, n := range c.numbers {
				if wrong != "" {
					t.Fatalf("said too early: %s", wrong)
				}
				wrong = a.came(n, c.qos)
			}
			if (wrong == "") != (c.wrong == "") || !strings.Contains(wrong, c.wrong) {
				t.Errorf("said %q, expected %q", wrong, c.wrong)
			}
			var promised []promise
			for n := range 4 {
				promised = append(promised, promise{number: n, at: time.Now()})
			}
			if m := a.missing(promised); len(m) != c.missing {
				t.Errorf("missing:%s; expected %d", brief(m), c.missing)
			}
		})
	}
}
