// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/metadata"
)

// uninformedKey is in a store of a broker of a cluster from when it is made until the
// broker knows what the others do.
var uninformedKey = []byte{0xFF, 0xFF, 'u'}

// How long a broker waits for what the others know before it serves by what it knows
// itself. Who was informed in an earlier run has missed what was new since, at most, and
// the others may be gone. The store of who never was knows no subscription of others at all, and
// those that it has met may have lost their disks too: it waits for all members.
const (
	informWait      = 5 * time.Second
	informWaitFresh = time.Minute
)

// informing is how a broker comes to know what the others do: the routes, and where
// tenants live. done and note are each called by one goroutine.
type informing struct {
	meta  *metadata.Store
	store kv.Store
	log   *slog.Logger
	// fresh says that the store never had it.
	fresh bool
	since time.Time // of the first look of done
	noted bool      // of note
}

func newInforming(meta *metadata.Store, store kv.Store, log *slog.Logger) (*informing, error) {
	_, err := store.Get(uninformedKey)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return nil, err
	}
	return &informing{meta: meta, store: store, log: log, fresh: err == nil}, nil
}

// done is host.Config.Informed.
func (i *informing) done() bool {
	if i.meta.Synced() && (!i.fresh || i.meta.MetAll()) {
		return true
	}
	if i.since.IsZero() {
		i.since = time.Now()
	}
	wait := informWait
	if i.fresh {
		wait = informWaitFresh
	}
	if time.Since(i.since) < wait {
		return false
	}
	i.log.Error("not all other brokers have said what they know: this one serves by what it knows itself, and messages for subscriptions that others have made go astray. Start the others, or give up those that are lost: manor admin cluster leave --node NAME --force",
		slog.Duration("waited", wait), slog.Bool("new_store", i.fresh))
	return true
}

// note keeps that the store has what the others know.
func (i *informing) note() error {
	if !i.fresh || i.noted || !i.meta.MetAll() {
		return nil
	}
	var b kv.Batch
	b.Delete(uninformedKey)
	err := i.store.Apply(&b, true)
	i.noted = err == nil
	return err
}
