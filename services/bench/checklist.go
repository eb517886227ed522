// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"

	"github.com/google/pprof/profile"
)

// The kinds of checks.
const (
	authentication = "authentication"
	authorisation  = "authorisation"
	quotaChecks    = "quotas"
)

// module is what the names of all functions here begin with.
const module = "github.com/manormq/manor/"

// checks are the functions, by kind, that look whether a client may do what it does. What
// they call is theirs. A test fails if there is one no more.
var checks = map[string][]string{
	authentication: {
		"tenancy/remote.(*Directory).Authenticate",
		"tenancy/remote.(*Directory).Begin",
		"tenancy/remote.(*Directory).admit",
		"tenancy/authn/password.(*Verifier).Verify",
	},
	authorisation: {
		"gateway/conn.(*Conn).permitted",
		"gateway/conn.(*Conn).permit",
		"gateway/conn.(*Conn).mayPublish",
		"gateway/conn.(*Conn).decided",
		"gateway/conn.(*Conn).checkSubscription",
		"tenancy.(*Grant).MayPublish",
		"tenancy.(*Grant).Publishes",
		"tenancy.(*Grant).MaySubscribe",
	},
	quotaChecks: {
		"gateway/conn.(*Conn).beyondLimits",
		"gateway/conn.beyondLimits",
		"gateway/conn.(*Rules).beyondCapabilities",
		"gateway.(*connection).limits",
		"gateway.(*connection).allowance",
		"gateway.allowance.packet",
		"gateway.charge",
		"gateway.(*connection).passedLocked",
		"gateway.(*connection).mayPassLocked",
		"gateway.(*connection).chargeOutLocked",
		"gateway.(*passing).take",
		"gateway.(*passing).end",
		"gateway.(*connection).throttledLocked",
		"gateway.(*connection).waitOf",
		"gateway.(*connection).metered",
		"gateway.(*Gateway).count",
		"gateway.(*Gateway).settle",
		"gateway/throttle.(*Throttle).Budget",
		"gateway/throttle.(*Throttle).Spend",
		"gateway/throttle.(*Throttle).Wait",
		"gateway/throttle.(*Throttle).Slowed",
		"gateway/throttle.(*Throttle).Slow",
		"services/broker/shard.(*Tenant).quota",
		"services/broker/shard.(*Shard).fanOutOf",
		"services/broker/shard.(*receivers).take",
		"services/broker/shard.(*Shard).mayRetainNow",
		"services/broker/shard.(*Shard).mayRetain",
		"services/broker/shard.(*Shard).nearRetainLimit",
	},
}

// checkShares are the parts of the CPU time of a profile that the checks have, 0 to 1, by
// kind and by function, and the time of all, in samples. What a check calls that is one too
// is the other's.
func checkShares(p *profile.Profile) (kinds, functions map[string]float64, samples int64) {
	kinds, functions = map[string]float64{}, map[string]float64{}
	kindOf := map[string]string{}
	for kind, names := range checks {
		kinds[kind] = 0
		for _, name := range names {
			kindOf[name] = kind
		}
	}
	for _, s := range p.Sample {
		samples += s.Value[0]
	}
	for _, s := range p.Sample {
		if name := innermost(s, kindOf); name != "" {
			part := float64(s.Value[0]) / float64(samples)
			kinds[kindOf[name]] += part
			functions[name] += part
		}
	}
	return kinds, functions, samples
}

// innermost is the check that a sample is in; empty if it is in none.
func innermost(s *profile.Sample, kindOf map[string]string) string {
	for _, l := range s.Location {
		for _, line := range l.Line {
			// Type parameters are not part of the name.
			name, _, _ := strings.Cut(line.Function.Name, "[")
			if name = strings.TrimPrefix(name, module); kindOf[name] != "" {
				return name
			}
		}
	}
	return ""
}
