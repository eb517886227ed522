// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// What a tenant uses of the quotas that gateways share is seen by API, as a sum, and a
// limit holds for both gateways together; who has used it up finds that in its history.
func TestQuotas_Gateways(t *testing.T) {
	g := startGateways(t)
	x := g.edges[0].signUp(t, "acme")
	x.quota(`{"connections":5,"publish_rate":1000}`)
	type quota struct {
		Name            string
		Limit           int64
		Usage, Headroom *int64
	}
	read := func(name string) quota {
		var list struct{ Items []quota }
		x.do("GET", "/v1/tenants/acme/quotas", "", &list)
		for _, q := range list.Items {
			if q.Name == name {
				return q
			}
		}
		t.Fatalf("there is no quota %s", name)
		return quota{}
	}
	wants := func(name string, usage, headroom int64) string {
		q := read(name)
		if q.Usage == nil || q.Headroom == nil {
			return name + " is not known"
		}
		if *q.Usage < usage*8/10 || *q.Usage > (usage*12+9)/10 || *q.Usage+*q.Headroom != q.Limit {
			return fmt.Sprintf("%s: usage %d, headroom %d of %d, expected about %d and %d", name, *q.Usage, *q.Headroom, q.Limit, usage, headroom)
		}
		return ""
	}
	x.within(func() string {
		if q := read("connections"); q.Limit != 5 {
			return "the limit is not there"
		}
		return ""
	})
	time.Sleep(time.Second) // gateways that have met divide the limits
	ctx, stop := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	defer func() {
		stop()
		publishers.Wait()
	}()
	for n := range 5 {
		d := g.on(x, n%2).device(clientID(fmt.Sprint("c-", n)))
		if n < 2 {
			publishers.Go(func() {
				for ctx.Err() == nil {
					d.publish("a", "x", 0, false)
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
	}
	end := time.Now().Add(soon)
	for {
		c, r := wants("connections", 5, 0), wants("publish_rate", 190, 810)
		if c == "" && r == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s; %s", c, r)
		}
	}
	if _, k := g.on(x, 1).connect(clientID("one-more")); k.Reason != mqtt.QuotaExceeded {
		t.Errorf("CONNACK %v beyond the limit", k.Reason)
	}
	for {
		var list struct {
			Items []struct{ Kind, Reason string }
		}
		x.do("GET", "/v1/tenants/acme/events?kind=quota_100", "", &list)
		if len(list.Items) == 1 && list.Items[0].Reason == "connections" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("events %+v", list.Items)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
