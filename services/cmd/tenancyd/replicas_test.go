// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/services/conform"
	"github.com/manormq/manor/services/conform/chaos"
)

var (
	rounds = flag.Int("rounds", 0, "how many processes TestReplicas kills; 0 leaves it out")
	offset = flag.String("listen-offset", "", "--listen-offset of manor dev; empty takes one whose ports seem free")
)

const (
	writers = 4
	// patience is for how long a write may be refused, or not answered, by all.
	patience = 45 * time.Second
)

// replicas are the equal processes of the API of a region, and who writes by them.
type replicas struct {
	*chaos.Region
	t       *testing.T
	tenant  string
	first   client.FirstCredential // of the tenant
	clients []*client.Client       // one for each process
	longest atomic.Int64           // that a write took, in nanoseconds
	retried atomic.Int64
}

// TestReplicas kills processes of the API and of NATS, one after the other, while
// several write by whichever answers. What was answered is there in the end, at each of
// them; what was asked for again is there once; what was taken away is gone; the
// audit log is whole; and what a process left of a purge another has ended.
func TestReplicas(t *testing.T) {
	if *rounds == 0 {
		t.Skip("kills as many processes as -rounds says")
	}
	dir := t.TempDir()
	if err := conform.Build(dir); err != nil {
		t.Fatal(err)
	}
	r := &replicas{t: t, Region: chaos.New(t, dir, chaos.Layout{Offset: *offset}, "--brokers", "1", "--gateways", "2", "--nats", "3", "--tenancies", "3")}
	r.signUp("")
	purge := r.doom()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	kept := make([]map[string]string, writers)
	for w := range writers {
		wg.Go(func() { kept[w] = r.write(w, stop) })
	}
	var limit int64
	wg.Go(func() { limit = r.count(stop) })
	for n := range *rounds {
		role := []string{"tenancy", "nats"}[n%2]
		of := r.Of(role)
		victim := of[rand.IntN(len(of))]
		fmt.Printf("%s kill -9 %s\n", time.Now().Format("15:04:05"), victim.Name)
		victim.Kill()
		time.Sleep(2 * time.Second) // the others go on without it
		victim.Start()
		victim.Ready(time.Minute)
	}
	close(stop)
	wg.Wait()
	all := map[string]string{}
	for _, k := range kept {
		maps.Copy(all, k)
	}
	for _, api := range r.clients {
		r.compare(api, all, limit)
	}
	r.connect(all)
	purge.gone()
	fmt.Printf("%d credentials are left of what was answered, the quota was changed %d times; %d requests were made again, and the longest took %.1f s\n",
		len(all), limit-first, r.retried.Load(), time.Duration(r.longest.Load()).Seconds())
}

// signUp makes the tenant, by the first process; without a plan it is the installation's
// default.
func (r *replicas) signUp(plan string) {
	r.t.Helper()
	signedUp := &client.SignedUp{}
	for k, n := range r.Of("tenancy") {
		url := "http://" + n.Addr("api")
		if k == 0 {
			c, err := client.New(client.Config{URL: url})
			if err == nil {
				signedUp, err = c.SignUp(r.t.Context(), client.SignUp{Organization: "Acme", Email: "ops@acme.example", Password: "correct-horse-battery", Tenant: "replicas", Plan: plan})
			}
			if err != nil {
				r.t.Fatal(err)
			}
			r.tenant, r.first = signedUp.Tenant.ID, signedUp.Credential
		}
		c, err := client.New(client.Config{URL: url, Key: signedUp.APIKey.Secret, HTTP: &http.Client{Timeout: 5 * time.Second}})
		if err != nil {
			r.t.Fatal(err)
		}
		r.clients = append(r.clients, c)
	}
}

// try makes a request of one process after the other until one answers it. Whoever
// does not get an answer asks again with the same key, so that it is done once.
func (r *replicas) try(what string, do func(ctx context.Context, api *client.Client, key client.Option) error) error {
	begun := time.Now()
	key := client.Idempotent(fmt.Sprintf("%s-%x", what, rand.Uint64()))
	for at := rand.IntN(len(r.clients)); ; at++ {
		err := do(r.t.Context(), r.clients[at%len(r.clients)], key)
		took := time.Since(begun)
		problem := client.AsProblem(err)
		if err == nil || problem != nil && errs.KindOf(problem) != errs.Unavailable && problem.Code != "idempotency_in_progress" {
			for was := r.longest.Load(); took > time.Duration(was) && !r.longest.CompareAndSwap(was, int64(took)); was = r.longest.Load() {
			}
			return err
		}
		if took > patience {
			return fmt.Errorf("no process has answered for %v: %w", patience, err)
		}
		r.retried.Add(1)
		time.Sleep(50 * time.Millisecond) // as a client does
	}
}

// write makes credentials and deletes some until stop is closed, and returns those
// that there must be, with their passwords.
func (r *replicas) write(w int, stop <-chan struct{}) map[string]string {
	kept := map[string]string{}
	for n := 0; ; n++ {
		select {
		case <-stop:
			return kept
		default:
		}
		name := fmt.Sprintf("w%d-%d", w, n)
		if err := r.try(name, func(ctx context.Context, api *client.Client, key client.Option) error {
			made, err := api.CreateCredential(ctx, r.tenant, client.NewCredential{Username: name}, key)
			if err == nil {
				kept[name] = made.Password
			}
			return err
		}); err != nil {
			r.t.Errorf("create %s: %v", name, err)
			return kept
		}
		if n%4 != 3 {
			continue
		}
		gone := fmt.Sprintf("w%d-%d", w, n-2)
		err := r.try("delete-"+gone, func(ctx context.Context, api *client.Client, _ client.Option) error {
			return api.DeleteCredential(ctx, r.tenant, gone)
		})
		if err != nil && !errs.Is(err, errs.NotFound) { // the first, unanswered one did it
			r.t.Errorf("delete %s: %v", gone, err)
			return kept
		}
		delete(kept, gone)
	}
}

// first is what count sets the quota to at first.
const first = 1000

// count raises a quota by one, again and again, each time with the ETag of what it has
// read, until stop is closed. It returns the last one.
func (r *replicas) count(stop <-chan struct{}) int64 {
	for n := int64(first); ; n++ {
		if err := r.try(fmt.Sprint("quota-", n), func(ctx context.Context, api *client.Client, _ client.Option) error {
			_, err := api.ReplaceOverrides(ctx, r.tenant, map[string]int64{"subscriptions_client": n})
			return err
		}); err != nil {
			r.t.Errorf("quota %d: %v", n, err)
			return n - 1
		}
		select {
		case <-stop:
			return n
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// compare holds what one process says against what was answered.
func (r *replicas) compare(api *client.Client, kept map[string]string, limit int64) {
	r.t.Helper()
	var found []string
	for cursor := ""; ; {
		page, err := api.Credentials(r.t.Context(), r.tenant, client.Query("cursor", cursor), client.Query("limit", "500"))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, c := range page.Items {
			if c.Username != "default" {
				found = append(found, c.Username)
			}
		}
		if page.Next == nil {
			break
		}
		cursor = *page.Next
	}
	for _, name := range found {
		if _, ok := kept[name]; !ok {
			r.t.Errorf("%s is there, though it was deleted or never answered", name)
		}
	}
	for name := range kept {
		if !slices.Contains(found, name) {
			r.t.Errorf("%s was answered and is not there", name)
		}
	}
	quotas, err := api.Quotas(r.t.Context(), r.tenant)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, q := range quotas.Items {
		if q.Name == "subscriptions_client" && q.Limit != limit {
			r.t.Errorf("the quota is %d, the last that was answered %d", q.Limit, limit)
		}
	}
	me, err := api.Me(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if check, err := api.VerifyAudit(r.t.Context(), me.Organization); err != nil || !check.Valid {
		r.t.Errorf("the audit log: %+v, %v", check, err)
	}
}

// connect has some of the credentials connect, at each gateway.
func (r *replicas) connect(kept map[string]string) {
	names := slices.Sorted(maps.Keys(kept))
	for _, addr := range r.Addrs() {
		for range min(20, len(names)) {
			name := names[rand.IntN(len(names))]
			d := conform.Device{Address: addr, Options: packet.Connect{
				Version: packet.V5, CleanStart: true, ClientID: name,
				HasUsername: true, Username: r.tenant + ":" + name, HasPassword: true, Password: []byte(kept[name]),
			}}
			ack, err := d.Connect()
			if err == nil && ack.Reason != mqtt.Success {
				err = errors.New(ack.Reason.String())
			}
			if err != nil {
				r.t.Errorf("%s at %s: %v", name, addr, err)
			}
			d.Disconnect()
		}
	}
}
