// SPDX-License-Identifier: Apache-2.0

package api

import (
	"math"
	"net/http"
	"net/netip"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/infra/errs"
)

// Rates bound what strangers may ask, who have no key yet. 0 means no bound.
// Each process counts its own.
type Rates struct {
	SignUpsAddress   int `yaml:"sign_ups_address" doc:"sign-ups and codes of sign-ups an hour from one IP address (of IPv6, one /64), and sign-ups an hour for one e-mail address; those that are refused, dry runs and repetitions count too; 0 is any number"`
	SignUps          int `yaml:"sign_ups" doc:"sign-ups a minute altogether; 0 is any number"`
	SignInsAddress   int `yaml:"sign_ins_address" doc:"attempts to sign in, or to accept an invitation, a minute from one IP address (of IPv6, one /64), and for one member; 0 is any number"`
	ClaimsAddress    int `yaml:"claims_address" doc:"claims of certificates a minute from one IP address (of IPv6, one /64); 0 is any number"`
	WrongKeysAddress int `yaml:"wrong_keys_address" doc:"wrong API keys and tokens a minute from one IP address (of IPv6, one /64); beyond it only keys and tokens that were right before are looked up for that address; 0 is any number"`
}

// DefaultRates are those of tenancyd.
func DefaultRates() Rates {
	return Rates{SignUpsAddress: 20, SignUps: 120, SignInsAddress: 10, ClaimsAddress: 60, WrongKeysAddress: 60}
}

// Validate returns an error Invalid if a rate is negative.
func (r Rates) Validate() error {
	if r.SignUpsAddress < 0 || r.SignUps < 0 || r.SignInsAddress < 0 || r.ClaimsAddress < 0 || r.WrongKeysAddress < 0 {
		return errs.New(errs.Invalid, "expected 0 or more")
	}
	return nil
}

// limiterNames is how many addresses a limiter remembers; beyond it the one that
// was quiet for longest is forgotten.
const limiterNames = 50_000

// limiter counts by name, and altogether. It is safe for concurrent use. nil
// limits nothing.
type limiter struct {
	each  int // per period
	over  time.Duration
	names *lru.Cache[string, *rate.Limiter]
}

func newLimiter(each int, over time.Duration) (*limiter, error) {
	if each == 0 {
		return nil, nil
	}
	names, err := lru.New[string, *rate.Limiter](limiterNames)
	if err != nil {
		return nil, errs.New(errs.Internal, "limiter: %w", err)
	}
	return &limiter{each: each, over: over, names: names}, nil
}

// take counts one more under that name. The error is a Problem 429 that says
// when to come back; then it is not counted.
func (l *limiter) take(now time.Time, name string) error {
	if l == nil {
		return nil
	}
	fresh := rate.NewLimiter(rate.Every(l.over/time.Duration(l.each)), l.each)
	bucket, known, _ := l.names.PeekOrAdd(name, fresh)
	if !known {
		bucket = fresh
	} else if again, ok := l.names.Get(name); ok { // used just now
		bucket = again
	}
	r := bucket.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return tooMany(wait)
}

// spent returns the error of take if one more could not be taken now, and counts nothing.
func (l *limiter) spent(now time.Time, name string) error {
	if l == nil {
		return nil
	}
	bucket, known := l.names.Get(name)
	if !known {
		return nil
	}
	if left := bucket.TokensAt(now); left < 1 {
		return tooMany(time.Duration((1 - left) * float64(l.over) / float64(l.each)))
	}
	return nil
}

func tooMany(wait time.Duration) error {
	p := newProblem(http.StatusTooManyRequests, "rate_limited", "too many attempts; try again later")
	p.RetryAfter = int64(math.Ceil(wait.Seconds()))
	return p
}

// addressName is the name under which an address counts: of IPv6 somebody has a
// /64 at least.
func addressName(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() {
		return address
	}
	network, err := a.Prefix(64)
	if err != nil {
		return address
	}
	return network.String()
}

// limiters are those of a Server.
type limiters struct{ signUps, signUpsAddress, signInsAddress, claimsAddress, wrongKeysAddress *limiter }

func newLimiters(r Rates) (l limiters, err error) {
	if err = r.Validate(); err != nil {
		return l, err
	}
	if l.signUps, err = newLimiter(r.SignUps, time.Minute); err != nil {
		return l, err
	}
	if l.signUpsAddress, err = newLimiter(r.SignUpsAddress, time.Hour); err != nil {
		return l, err
	}
	if l.wrongKeysAddress, err = newLimiter(r.WrongKeysAddress, time.Minute); err != nil {
		return l, err
	}
	if l.claimsAddress, err = newLimiter(r.ClaimsAddress, time.Minute); err != nil {
		return l, err
	}
	l.signInsAddress, err = newLimiter(r.SignInsAddress, time.Minute)
	return l, err
}

// of returns what counts an operation that needs no key, by the caller's address; ok is
// false if nothing does.
func (l *limiters) of(operation string) (of *limiter, ok bool) {
	switch operation {
	case "sign-up", "verify-sign-up":
		return l.signUpsAddress, true
	case "sign-in", "accept-invitation":
		return l.signInsAddress, true
	case "redeem-claim":
		return l.claimsAddress, true
	}
	return nil, false
}

// signUp counts a sign-up, or a try of its code, whose address was counted before: then
// email is empty.
func (l *limiters) signUp(now time.Time, email string) error {
	if email != "" {
		if err := l.signUpsAddress.take(now, strings.ToLower(email)); err != nil {
			return err
		}
	}
	return l.signUps.take(now, "all")
}

// signIn counts an attempt to sign in as the member; its address was counted before.
func (l *limiters) signIn(now time.Time, member string) error {
	return l.signInsAddress.take(now, member)
}
