// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// account is what one subscriber got of one topic, held against what its
// publisher was promised.
type account struct {
	mu      sync.Mutex
	times   []uint8 // guarded by mu, by number: how often it came
	highest int     // guarded by mu: -1 before the first
}

// came takes note of number n and says what is wrong with its coming now, at the
// lower of the QoS of publisher and subscriber.
func (a *account) came(n int, qos mqtt.QoS) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.times) <= n {
		a.times = append(a.times, 0)
	}
	a.times[n] = min(a.times[n]+1, 255)
	switch {
	case a.times[n] > 1 && qos == mqtt.ExactlyOnce:
		return fmt.Sprintf("number %d came %d times at QoS 2", n, a.times[n])
	case a.times[n] == 1 && n < a.highest:
		return fmt.Sprintf("number %d came first after %d", n, a.highest)
	}
	a.highest = max(a.highest, n)
	return ""
}

// missing returns those of promised that did not come.
func (a *account) missing(promised []promise) (missing []promise) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range promised {
		if p.number >= len(a.times) || a.times[p.number] == 0 {
			missing = append(missing, p)
		}
	}
	return missing
}

// promise is a publish that was acknowledged.
type promise struct {
	number   int
	sent, at time.Time // first sent, acknowledged
}

// brief lists at most ten promises.
func brief(all []promise) string {
	var b strings.Builder
	for i, p := range all {
		if i == 10 {
			fmt.Fprintf(&b, " and so on to %d", all[len(all)-1].number)
			break
		}
		fmt.Fprintf(&b, " %d (sent %s, acknowledged %s)", p.number, p.sent.Format("05.000"), p.at.Format("15:04:05.000"))
	}
	return b.String()
}
