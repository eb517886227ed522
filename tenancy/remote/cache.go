// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/tenancy"
)

// knownTenant is a tenant as it is kept. It is immutable.
type knownTenant struct {
	record *tenancy.TenantRecord
	tenant *tenancy.Tenant // nil unless clients may hear of it
}

// realm is what is kept of one tenant's credentials.
type realm struct {
	names map[string]tenancy.Credential
	// whole says that names has all of them; large that there are too many for
	// that; wanted that somebody was asked to read them.
	whole, large, wanted bool
	// readers counts reads of the bus that are under way; deletes that come
	// meanwhile are in deleted, by name, with their revisions.
	readers int
	deleted map[string]uint64
	// doubts limits how often the bus is asked about names that are not among
	// all of them; nil until it is first.
	doubts *rate.Limiter
}

// Of a tenant whose credentials are held whole, the bus is asked about a name
// that is not among them only so often: the watch tells of new ones anyway,
// some milliseconds later.
const (
	doubtsPerSecond = 10
	doubtsAtOnce    = 20
)

// cache is what a Directory keeps. It is safe for concurrent use.
type cache struct {
	limit int

	mu      sync.RWMutex
	tenants map[string]*knownTenant // guarded by mu
	realms  map[string]*realm       // guarded by mu
	count   int                     // guarded by mu; credentials in all realms
	// revision is up to where the credentials' watch has told; guarded by mu.
	revision uint64
}

func newCache(limit int) *cache {
	return &cache{limit: limit, tenants: map[string]*knownTenant{}, realms: map[string]*realm{}}
}

func (c *cache) tenant(id string) *knownTenant {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tenants[id]
}

// setTenant keeps k unless a newer one is there, and reports whether it did. One
// of the same revision counts: whoever read it before the watch told nobody.
func (c *cache) setTenant(k *knownTenant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.tenants[k.record.ID]
	if old != nil && old.record.Revision > k.record.Revision {
		return false
	}
	c.tenants[k.record.ID] = k
	return true
}

// dropTenant forgets a tenant and its credentials.
func (c *cache) dropTenant(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.tenants[id]; !ok {
		return false
	}
	delete(c.tenants, id)
	if r := c.realms[id]; r != nil && r.readers == 0 {
		c.count -= len(r.names)
		delete(c.realms, id)
	}
	return true
}

// tenantIDs returns the ids of all tenants that are kept.
func (c *cache) tenantIDs() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]string, 0, len(c.tenants))
	for id := range c.tenants {
		ids = append(ids, id)
	}
	return ids
}

// credential is find, and wanted says that the caller should have the tenant
// read whole; nobody else is told so. All of it is of one moment: that a name is
// missing from a tenant held whole says that there is no such credential.
func (c *cache) credential(tenant, username string) (cred tenancy.Credential, ok, whole, wanted bool) {
	c.mu.RLock()
	r := c.realms[tenant]
	if r != nil && r.wanted {
		cred, ok = r.names[username]
		whole = r.whole
		c.mu.RUnlock()
		return cred, ok, whole, false
	}
	c.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	r = c.realm(tenant)
	cred, ok = r.names[username]
	wanted = !r.wanted
	r.wanted = true
	return cred, ok, r.whole, wanted
}

// find looks a credential up. whole says that all of the tenant's are here.
func (c *cache) find(tenant, username string) (cred tenancy.Credential, ok, whole bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.realms[tenant]
	if r == nil {
		return cred, false, false
	}
	cred, ok = r.names[username]
	return cred, ok, r.whole
}

// mayDoubt reports whether the bus may be asked about a name though all of the
// tenant's are here.
func (c *cache) mayDoubt(tenant string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.realm(tenant)
	if r.doubts == nil {
		r.doubts = rate.NewLimiter(doubtsPerSecond, doubtsAtOnce)
	}
	return r.doubts.AllowN(now, 1)
}

// wanted reports whether clients of the tenant come here, so that it is read whole.
func (c *cache) wanted(tenant string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.realms[tenant]
	return r != nil && r.wanted
}

// loadLater takes back that the tenant is being read whole.
func (c *cache) loadLater(tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.realm(tenant).wanted = false
}

// realm returns a tenant's realm and makes it if missing. The caller holds mu.
func (c *cache) realm(tenant string) *realm {
	r := c.realms[tenant]
	if r == nil {
		r = &realm{names: map[string]tenancy.Credential{}}
		c.realms[tenant] = r
	}
	return r
}

// reading says that credentials of the tenant are being read from the bus,
// until done is called: what the watch tells meanwhile is remembered.
func (c *cache) reading(tenant string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.realm(tenant)
	r.readers++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.readers--; r.readers == 0 {
			r.deleted = nil
		}
	}
}

// read keeps a credential that was read from the bus and returns what is true
// now: a newer one, or none, if the watch was faster.
func (c *cache) read(tenant string, cred tenancy.Credential) (tenancy.Credential, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.realm(tenant)
	if r.deleted[cred.Username] > cred.Revision {
		return tenancy.Credential{}, false
	}
	if old, ok := r.names[cred.Username]; ok && old.Revision >= cred.Revision {
		return old, true
	}
	c.store(r, cred)
	return cred, true
}

// store keeps a credential. The caller holds mu.
func (c *cache) store(r *realm, cred tenancy.Credential) {
	if _, ok := r.names[cred.Username]; !ok {
		if c.count >= c.limit {
			c.evict(r)
		}
		c.count++
	}
	r.names[cred.Username] = cred
}

// evict forgets some credential of the realm; it is then no longer whole. The
// caller holds mu.
func (c *cache) evict(r *realm) {
	for name := range r.names {
		delete(r.names, name)
		c.count--
		r.whole = false
		return
	}
}

// setWhole ends reading a tenant whole: creds are all of its credentials, or
// large says that there are too many.
func (c *cache) setWhole(tenant string, creds []tenancy.Credential, large bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.realm(tenant)
	r.large = large
	r.whole = !large
	if large {
		return
	}
	for _, cred := range creds {
		if r.deleted[cred.Username] > cred.Revision {
			continue
		}
		if old, ok := r.names[cred.Username]; !ok || old.Revision < cred.Revision {
			c.store(r, cred)
		}
	}
}

// told applies what the watch says about a credential and reports whether
// connections of that name have to end, or to go on with another session.
func (c *cache) told(cred tenancy.Credential, deleted bool) (gone, session bool) {
	session = !deleted && cred.SessionGeneration > 0
	gone = c.toldGone(cred, deleted, &session)
	return gone, session && !gone
}

// toldGone is told; it takes session back if it was known to be the same.
func (c *cache) toldGone(cred tenancy.Credential, deleted bool, session *bool) (gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = max(c.revision, cred.Revision)
	r := c.realms[cred.Tenant]
	if r == nil {
		return deleted || cred.Generation > 1
	}
	old, known := r.names[cred.Username]
	if known && old.Revision >= cred.Revision {
		// It was read from the bus before the watch told; that told nobody.
		return deleted || cred.Generation > 1
	}
	if deleted {
		if known {
			delete(r.names, cred.Username)
			c.count--
		}
		if r.readers > 0 {
			if r.deleted == nil {
				r.deleted = map[string]uint64{}
			}
			r.deleted[cred.Username] = cred.Revision
		}
		return true
	}
	if known || r.whole || r.readers > 0 {
		c.store(r, cred)
	}
	if known {
		*session = *session && old.SessionGeneration != cred.SessionGeneration
		return old.Hash != cred.Hash || old.ID != cred.ID
	}
	return cred.Generation > 1
}

// tenantCount is how many tenants are kept that clients may hear of.
func (c *cache) tenantCount() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := 0
	for _, k := range c.tenants {
		if k.tenant != nil {
			n++
		}
	}
	return n
}

func (c *cache) kept() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.count
}

func (c *cache) setRevision(revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = max(c.revision, revision)
}

// absentees remembers for a moment what the bus did not have, so that a client
// that knocks again and again does not ask the bus each time.
type absentees struct {
	seen *lru.Cache[string, time.Time]
}

// absentLife is how long it is remembered. It is a part of the 2 s in which a
// change has to be known.
const absentLife = time.Second

func newAbsentees() *absentees {
	c, err := lru.New[string, time.Time](10_000)
	if err != nil {
		panic("remote: " + err.Error()) // only for a size below 1
	}
	return &absentees{seen: c}
}

func (a *absentees) has(key string, now time.Time) bool {
	t, ok := a.seen.Get(key)
	return ok && now.Sub(t) < absentLife
}

func (a *absentees) add(key string, now time.Time) { a.seen.Add(key, now) }

func (a *absentees) remove(key string) { a.seen.Remove(key) }
