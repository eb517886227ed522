// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// admittedMost is how many answers of mqtt.connect are kept.
const admittedMost = 100_000

// grants are the compiled classes of tenants' policies that somebody has asked for,
// of the revision that is asked for last, and what mqtt.connect has said of clients.
// They are safe for concurrent use.
type grants struct {
	mu      sync.Mutex
	tenants map[string]*granted // guarded by mu
	reads   singleflight.Group
	// admitted are the clients that mqtt.connect lets in.
	admitted *lru.Cache[admission, admitted]
}

// granted are the classes of a tenant that are known, by name.
type granted struct {
	revision uint64
	classes  map[string]*tenancy.GrantSet
}

// admission is a client, under a revision of its tenant's policy.
type admission struct {
	tenant               string
	revision             uint64
	client, username, cn string
	// known is the digest of its groups and claims, empty without any.
	known string
}

// admissionOf is that of a client under a revision.
func admissionOf(tenant string, revision uint64, s *tenancy.Subject) admission {
	return admission{tenant, revision, s.ClientID, s.Username, s.CommonName, knownOf(s)}
}

func knownOf(s *tenancy.Subject) string {
	if len(s.Groups) == 0 && len(s.Claims) == 0 {
		return ""
	}
	h := sha256.New()
	for _, g := range s.Groups { // which are in order
		fmt.Fprintf(h, "%q,", g)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		fmt.Fprintf(h, "%q:%q,", name, s.Claims[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

type admitted struct {
	class string
	at    time.Time
}

func newGrants() *grants {
	c, err := lru.New[admission, admitted](admittedMost)
	if err != nil {
		panic("remote: " + err.Error()) // only for a size below 1
	}
	return &grants{tenants: map[string]*granted{}, admitted: c}
}

func (g *grants) get(tenant string, revision uint64, class string) *tenancy.GrantSet {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tenants[tenant]; t != nil && t.revision == revision {
		return t.classes[class]
	}
	return nil
}

// put keeps a class. One of an older revision is not kept.
func (g *grants) put(tenant string, revision uint64, class string, s *tenancy.GrantSet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tenants[tenant]
	if t == nil || t.revision != revision {
		t = &granted{revision: revision, classes: map[string]*tenancy.GrantSet{}}
		g.tenants[tenant] = t
	}
	t.classes[class] = s
}

func (g *grants) drop(tenant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tenants, tenant)
}

// Authorize implements tenancy.Directory. Of a policy without mqtt.connect nobody
// but the bucket of grants is asked, once for each revision and class; what
// mqtt.connect says is asked of a tenancyd, and what it has said under the live
// revision holds while none can be asked.
func (d *Directory) Authorize(ctx context.Context, t *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
	p := t.Policy
	if p.Live() == 0 {
		return tenancy.DefaultGrant(), nil
	}
	class := tenancy.DefaultClass
	if p.Connect {
		var err error
		if class, err = d.admit(ctx, t, a); err != nil {
			return nil, err
		}
	}
	s, err := d.grantSet(ctx, t.ID, p.Revision, class)
	if err != nil {
		return nil, err
	}
	grant := s.Bind(&a.Client)
	if p.Dynamic {
		grant = grant.Asking()
	}
	return grant, nil
}

// admit asks mqtt.connect, and returns the client's class.
func (d *Directory) admit(ctx context.Context, t *tenancy.Tenant, a *tenancy.Arrival) (class string, err error) {
	key := admissionOf(t.ID, t.Policy.Revision, &a.Client)
	body, err := json.Marshal(tenancy.ConnectQuestion{Tenant: t.ID, Revision: t.Policy.Revision, Arrival: *a})
	if err != nil {
		return "", errs.New(errs.Internal, "ask mqtt.connect: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tenancy.ConnectTime)
	defer cancel()
	var answer tenancy.ConnectAnswer
	b, err := d.cfg.Bus.Request(ctx, tenancy.ConnectSubject, body)
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	switch {
	case errs.Is(err, errs.Unavailable):
		if known, ok := d.grants.admitted.Get(key); ok && d.now().Sub(known.at) < d.cfg.Keep {
			return known.class, nil
		}
		return "", d.unanswered(aboutPolicy, fmt.Sprintf("this client was not let in before under revision %d of the policy", key.revision), err)
	case err != nil:
		return "", errs.New(errs.Internal, "mqtt.connect of tenant %s, revision %d: %w", t.ID, key.revision, err)
	case !answer.Allow:
		d.grants.admitted.Remove(key)
		if answer.Why != "" {
			d.log.Warn("a client was denied because mqtt.connect cannot be followed", "tenant", t.ID, "client_id", a.Client.ClientID, "revision", key.revision, "why", answer.Why)
		}
		if answer.Reason == "" {
			answer.Reason = "the tenant's policy does not let this client in"
		}
		return "", errs.Coded(errs.Denied, "policy_denied", "%s", answer.Reason)
	}
	d.grants.admitted.Add(key, admitted{answer.Class, d.now()})
	d.markDirty()
	return answer.Class, nil
}

// grantSet returns a class of a policy, from what is kept or else the bucket.
func (d *Directory) grantSet(ctx context.Context, tenant string, revision uint64, class string) (*tenancy.GrantSet, error) {
	if s := d.grants.get(tenant, revision, class); s != nil {
		return s, nil
	}
	key := tenancy.GrantsKey(tenant, revision, class)
	v, err, _ := d.grants.reads.Do(key, func() (any, error) {
		return d.ask(context.WithoutCancel(ctx), aboutGrants, fmt.Sprintf("the grants of revision %d are not known here", revision),
			func(b *buckets) bus.Bucket { return b.grants }, key)
	})
	switch {
	case errs.Is(err, errs.NotFound):
		return nil, errs.Coded(errs.Denied, "class_unknown", "the tenant's policy has no class %q", class)
	case err != nil:
		return nil, err
	}
	e, _ := v.(bus.Entry)
	s, err := tenancy.DecodeGrants(e.Value, revision, class)
	if err != nil {
		return nil, err
	}
	d.grants.put(tenant, revision, class, s)
	d.markDirty()
	return s, nil
}

// snapshotGrants are the grants of a class, and snapshotAdmitted a client that
// mqtt.connect lets in, as the snapshot has them.
type (
	snapshotGrants struct {
		Revision uint64 `json:"revision"`
		Class    string `json:"class"`
		tenancy.Grants
	}
	snapshotAdmitted struct {
		Revision uint64    `json:"revision"`
		Client   string    `json:"client"`
		Username string    `json:"username,omitempty"`
		CN       string    `json:"cn,omitempty"`
		Known    string    `json:"known,omitempty"`
		Class    string    `json:"class"`
		At       time.Time `json:"at"`
	}
)

// snapshot returns what is kept, by tenant.
func (g *grants) snapshot() (sets map[string][]snapshotGrants, clients map[string][]snapshotAdmitted) {
	sets, clients = map[string][]snapshotGrants{}, map[string][]snapshotAdmitted{}
	g.mu.Lock()
	for id, t := range g.tenants {
		for class, s := range t.classes {
			sets[id] = append(sets[id], snapshotGrants{t.revision, class, tenancy.NewGrants(s.Entries)})
		}
	}
	g.mu.Unlock()
	for _, k := range g.admitted.Keys() { // the oldest first
		if v, ok := g.admitted.Peek(k); ok {
			clients[k.tenant] = append(clients[k.tenant], snapshotAdmitted{k.revision, k.client, k.username, k.cn, k.known, v.class, v.at})
		}
	}
	return sets, clients
}

// restore keeps what a snapshot has of a tenant.
func (g *grants) restore(tenant string, sets []snapshotGrants, clients []snapshotAdmitted) error {
	for _, x := range sets {
		s, err := tenancy.NewGrantSet(tenancy.GrantRevision(x.Revision), x.Class, x.All())
		if err != nil {
			return err
		}
		g.put(tenant, x.Revision, x.Class, s)
	}
	for _, x := range clients {
		g.admitted.Add(admission{tenant, x.Revision, x.Client, x.Username, x.CN, x.Known}, admitted{x.Class, x.At})
	}
	return nil
}
