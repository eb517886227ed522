// SPDX-License-Identifier: Apache-2.0

package usage_test

import (
	"context"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/quota"
	"github.com/manormq/manor/tenancy/quota/usage"
)

// The sum is that of all gateways that report; without one of them it is not known.
func TestUsage(t *testing.T) {
	b := mem.New()
	asker := usage.New(b)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = asker.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	report := func(from string, leaving bool) {
		for _, body := range (&quota.Report{From: from, Leaving: leaving}).Encode() {
			if err := b.Publish(t.Context(), quota.Subject, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := asker.Usage(t.Context(), "acme"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("no gateway: error %v, expected Unavailable", err)
	}
	for from, n := range map[string]float64{"gw-1": 3, "gw-2": 4} {
		stop, err := usage.Serve(b, from, func(tenant string) (u usage.Used) {
			if tenant == "acme" {
				u[quota.PublishRate] = n
			}
			return u
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		report(from, false)
	}
	// until is a question until it has that answer.
	until := func(what string, ok func(u usage.Used, err error) bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			u, err := asker.Usage(t.Context(), "acme")
			if ok(u, err) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v, error %v", what, u, err)
			}
		}
	}
	until("both", func(u usage.Used, err error) bool { return err == nil && u[quota.PublishRate] == 7 })
	report("gw-3", false) // which does not answer
	until("one is silent", func(_ usage.Used, err error) bool { return errs.Is(err, errs.Unavailable) })
	report("gw-3", true)
	until("it has gone", func(u usage.Used, err error) bool { return err == nil && u[quota.PublishRate] == 7 })
}
