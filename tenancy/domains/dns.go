// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// lookupTime bounds a question to the DNS, and the wait before it is asked.
const lookupTime = 5 * time.Second

// lookupsAtOnce is how many questions one process asks at a time: so many for those who
// wait for the answer, and as many for renewals. Each tenant has one of each.
const lookupsAtOnce = 16

// resolver asks the DNS. It is safe for concurrent use.
type resolver struct {
	net *net.Resolver
	log *slog.Logger
	// asked is for requests, due for what Run does: neither takes the other's turns.
	asked, due *turns
}

func newResolver(address string, log *slog.Logger) *resolver {
	r := &resolver{net: net.DefaultResolver, log: log, asked: newTurns(lookupsAtOnce), due: newTurns(lookupsAtOnce)}
	if address != "" {
		r.net = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}}
	}
	return r
}

// noTurn is an error that says nothing of the DNS: too many questions are on their way.
func noTurn(err error) bool { return errs.CodeOf(err) == "domain_lookups_busy" }

// verify looks for the record by which a domain is verified, in a turn of who: the tenant
// that is to wait for others of its own questions. The error is Denied with Code
// "domain_unverified" if the DNS says that it is not there, Unavailable if it says
// nothing, or noTurn.
func (r *resolver) verify(ctx context.Context, turns *turns, who string, d *tenancy.Domain) error {
	leave, ok := turns.take(ctx, who, lookupTime)
	if !ok {
		return errs.Coded(errs.Unavailable, "domain_lookups_busy", "too many domains are verified just now: try again in some seconds")
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	values, err := r.net.LookupTXT(ctx, d.ChallengeName()+".")
	found := "none"
	switch dns, ok := errors.AsType[*net.DNSError](err); {
	case err == nil && slices.Contains(values, d.ChallengeValue()):
		return nil
	case err == nil:
		found = shown(values)
	case !ok || !dns.IsNotFound:
		// Which server that was is the operator's to know.
		r.log.Warn("the DNS did not answer", "domain", d.FQDN, "tenant", d.Tenant, "error", err)
		return errs.New(errs.Unavailable, "the DNS did not answer about %s: %s", d.ChallengeName(), unanswered(dns))
	}
	return errs.Coded(errs.Denied, "domain_unverified", "expected a TXT record %s with the value %s, found %s", d.ChallengeName(), d.ChallengeValue(), found)
}

// unanswered is what is told of a question without an answer.
func unanswered(err *net.DNSError) string {
	switch {
	case err != nil && err.IsTimeout:
		return "timeout"
	case err != nil && err.IsTemporary:
		return "server failure"
	}
	return "no answer"
}

// shown is what is told of records that others may have written.
func shown(values []string) string {
	const most, long = 5, 80
	var all []string
	for _, v := range values[:min(len(values), most)] {
		if len(v) > long {
			v = v[:long] + "…"
		}
		all = append(all, `"`+strings.ToValidUTF8(v, "?")+`"`)
	}
	return strings.Join(all, ", ")
}
