// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// lookupTime bounds a question to the DNS.
const lookupTime = 5 * time.Second

// lookupsAtOnce is how many questions one process asks at a time.
const lookupsAtOnce = 16

// resolver asks the DNS. It is safe for concurrent use.
type resolver struct {
	net   *net.Resolver
	turns chan struct{}
}

func newResolver(address string) *resolver {
	r := &resolver{net: net.DefaultResolver, turns: make(chan struct{}, lookupsAtOnce)}
	if address != "" {
		r.net = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}}
	}
	return r
}

// verify looks for the record by which a domain is verified. The error is Denied with
// Code "domain_unverified" if the DNS says that it is not there, Unavailable if it says
// nothing.
func (r *resolver) verify(ctx context.Context, d *tenancy.Domain) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "too many domains are verified just now")
	}
	values, err := r.net.LookupTXT(ctx, d.ChallengeName()+".")
	found := "none"
	switch dns, ok := errors.AsType[*net.DNSError](err); {
	case err == nil && slices.Contains(values, d.ChallengeValue()):
		return nil
	case err == nil:
		found = shown(values)
	case !ok || !dns.IsNotFound:
		return errs.New(errs.Unavailable, "the DNS did not answer about %s: %w", d.ChallengeName(), err)
	}
	return errs.Coded(errs.Denied, "domain_unverified", "expected a TXT record %s with the value %s, found %s", d.ChallengeName(), d.ChallengeValue(), found)
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
