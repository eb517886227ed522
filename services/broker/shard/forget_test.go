// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// has is how many keys and values of the store have a text in them.
func (w *world) has(text string) (n int) {
	w.t.Helper()
	it := w.store.Scan(nil, nil)
	defer it.Close()
	for it.Next() {
		if bytes.Contains(it.Key(), []byte(text)) || bytes.Contains(it.Value(), []byte(text)) {
			n++
		}
	}
	if err := it.Err(); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// forgetAll has a tenant be forgotten, and returns what it had.
func (w *world) forgetAll(tenant string) (had link.Usage) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		a := w.set.Ask(&link.Query{Kind: link.QueryForget, Tenant: tenant})
		if a.Error != "" {
			w.t.Fatal(a.Error)
		}
		if !a.Found {
			return had
		}
		had.PersistentSessions += a.Usage.PersistentSessions
		had.QueueMessages += a.Usage.QueueMessages
		had.Retained += a.Usage.Retained
	}
	w.t.Fatal("there is always something left")
	return had
}

// What a tenant has is forgotten for good, in portions, and nothing of another's.
func TestForget(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const sessions, retained = 40, forgetMost + 200
		for _, tenant := range []string{"acme", "beta"} {
			for i := range sessions {
				c := w.connect(fmt.Sprint(tenant, "-away-", i), persistent, inTenant(tenant))
				c.subscribe("t/away/#", 1)
				c.close(link.CloseNormal)
			}
			c := w.connect(tenant+"-there", persistent, inTenant(tenant), will("t/will", 0))
			c.subscribe("t/there", 2)
			p := w.connect(tenant+"-publisher", inTenant(tenant))
			p.publish(1, "t/away/x", "queued of "+tenant, 1)
			p.wantAck(mqtt.Puback, 1)
			n := retained
			if tenant == "beta" {
				n = 3
			}
			for i := range n {
				p.retain(0, fmt.Sprint("t/retained/", i), "retained of "+tenant, 0)
			}
			p.retain(2, "t/last", "retained of "+tenant, 1)
			p.wantAck(mqtt.Puback, 2)
			w.settle()
		}
		before := w.set.Tenant("beta").Usage()
		had := w.forgetAll("acme")
		// The one that is there, and the publisher's, are sessions too.
		if had.PersistentSessions != sessions+2 || had.QueueMessages != sessions || had.Retained != retained+1 {
			t.Errorf("forgotten: %+v", had)
		}
		if left := w.set.Tenant("acme").Usage(); left != (link.Usage{}) {
			t.Errorf("acme still has %+v", left)
		}
		if now := w.set.Tenant("beta").Usage(); now != before {
			t.Errorf("beta has %+v, and had %+v", now, before)
		}
		w.settle()
		for _, text := range []string{"\x04acme", "acme-", "of acme"} {
			if n := w.has(text); n > 0 {
				t.Errorf("%d records have %q", n, text)
			}
		}
		if n := w.has("of beta"); n < sessions {
			t.Errorf("%d records of beta are left", n)
		}
		w.restart(2)
		if left := w.set.Tenant("acme").Usage(); left != (link.Usage{}) {
			t.Errorf("after a restart acme has %+v", left)
		}
	})
}

// A portion has no more sessions than one, if that has many messages waiting for it.
func TestForget_Queued(t *testing.T) {
	w := newWorld(t, 1, false)
	for i := range 3 {
		c := w.connect(fmt.Sprint("away-", i), persistent)
		c.subscribe(fmt.Sprint("t/", i), 1)
		c.close(link.CloseNormal)
	}
	p := w.connect("publisher")
	for i := range 3 {
		for n := range uint16(forgetQueued/2 + 1) {
			p.publish(n+1, fmt.Sprint("t/", i), "x", 1)
		}
		p.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
		p = w.connect(fmt.Sprint("publisher-", i))
	}
	w.settle()
	a := w.set.Ask(&link.Query{Kind: link.QueryForget, Tenant: "acme"})
	if !a.Found || a.Error != "" || a.Usage.QueueMessages < forgetQueued || a.Usage.QueueMessages > forgetQueued+2 {
		t.Errorf("the first portion is %+v", a)
	}
	if had := w.forgetAll("acme"); a.Usage.QueueMessages+had.QueueMessages != 3*(forgetQueued/2+1) {
		t.Errorf("the rest is %+v, the first portion was %+v", had, a.Usage)
	}
}
