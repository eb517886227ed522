// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// Where things belong, as operators say it (docs/adr/0031).

// SetClass implements operate.Cluster.
func (d *desk) SetClass(ctx context.Context, ids []int, label string, replicas int) error {
	if err := d.mayRecord(); err != nil {
		return err
	}
	label, err := layout.Normal(label)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	able, err := d.region.host.Accepting(ctx, label)
	if err != nil {
		return err
	}
	classes, most := make(map[partition.ID]layout.Class), 0
	for _, id := range ids {
		if id < 0 || id >= d.config.Partitions {
			return errs.New(errs.NotFound, "expected partitions from 0 to %d, found %d", d.config.Partitions-1, id)
		}
		p := partition.ID(id)
		c := d.region.layout.Said(p)
		if c.Label = label; replicas != 0 {
			c.Replicas = replicas
		}
		classes[p] = c
		if c.Replicas == 0 {
			c.Replicas = d.region.layout.Replicas(p)
		}
		most = max(most, c.Replicas)
	}
	name := layout.Name(label)
	switch {
	case len(able) == 0:
		return errs.New(errs.Conflict, "no broker that is there accepts the label %s: start one with %s among its broker.cluster.labels first", name, name)
	case len(able) < most:
		return errs.New(errs.Conflict, "%d brokers accept the label %s (%s), and there are to be %d replicas: start another one with that label, or say --replicas %d",
			len(able), name, strings.Join(words(able), ", "), most, len(able))
	}
	if err := d.region.layout.SetClasses(ctx, classes); err != nil {
		return err
	}
	d.log.Warn("an operator has partitions be held by brokers with a label", slog.Any("partitions", ids), slog.String("label", name), slog.Int("replicas", replicas))
	return nil
}

// Settings implements operate.Cluster.
func (d *desk) Settings() (out []operate.Setting) {
	if d.region == nil {
		return nil
	}
	for _, s := range d.region.layout.Settings() {
		out = append(out, operate.Setting{Name: s.Name, Value: s.Value, Set: s.Set, Least: s.Least, Most: s.Most, Doc: s.Doc})
	}
	return out
}

// Set implements operate.Cluster.
func (d *desk) Set(ctx context.Context, name, value string) error {
	if err := d.mayRecord(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := d.region.layout.Set(ctx, name, value); err != nil {
		return err
	}
	d.log.Warn("an operator has changed a setting of the cluster", slog.String("name", name), slog.String("value", value))
	return nil
}

// Placements implements operate.Cluster.
func (d *desk) Placements() (out []operate.Placement) {
	if d.region == nil {
		return nil
	}
	d.region.layout.Cells(func(tenant string, c layout.Cell) { out = append(out, placementOf(tenant, c)) })
	return out
}

func placementOf(tenant string, c layout.Cell) operate.Placement {
	return operate.Placement{
		Tenant: tenant, Revision: c.Revision, Placed: c.Placed() && !c.Purged, Stage: stageNames[c.Stage], Purged: c.Purged, Partitions: plain(c.Partitions), To: plain(c.To),
	}
}

var stageNames = map[layout.Stage]string{layout.Leaving: "leaving", layout.Arriving: "arriving"}

func plain(list []partition.ID) (out []int) {
	for _, id := range list {
		out = append(out, int(id))
	}
	return out
}

const (
	// holdTime is for how long a broker lets nobody of a tenant in that is about to get
	// another place: longer than that takes, and no longer than clients wait.
	holdTime = 10 * time.Second
	// placeTick is how often it is looked whether all brokers have the new record.
	placeTick = 50 * time.Millisecond
)

// Place implements operate.Cluster. While it looks whether the tenant has anything, and
// until all brokers have the new record, no broker lets its clients in: they wait at
// their gateways. If this broker ends meanwhile, the others let them in after holdTime. A
// tenant that has something goes with that (movers.go), and grows in waves.
func (d *desk) Place(ctx context.Context, tenant string, to operate.Place) (operate.Placement, error) {
	if d.region == nil {
		return operate.Placement{}, d.errAlone()
	}
	d.log.Warn("an operator says where a tenant is to live", slog.String("tenant", tenant), slog.Any("place", to))
	if to.Grow > 0 {
		return d.placeWaves(ctx, tenant, to)
	}
	return d.place(ctx, tenant, to)
}

// place is Place, of a cell that grows the first wave.
func (d *desk) place(ctx context.Context, tenant string, to operate.Place) (operate.Placement, error) {
	if err := d.mayRecord(); err != nil {
		return operate.Placement{}, err
	}
	list, err := d.placeFor(tenant, to)
	if err != nil {
		return operate.Placement{}, err
	}
	for _, m := range d.Members() {
		if m.State != "alive" {
			return operate.Placement{}, errs.New(errs.Conflict, "%s is %s: all brokers must know of it, so bring it back, or have it leave the cluster", m.Name, m.State)
		}
	}
	moves, err := d.placeEmpty(ctx, tenant, func(ctx context.Context) (layout.Cell, error) { return d.region.layout.Place(ctx, tenant, list) })
	switch {
	case err != nil:
		return operate.Placement{}, err
	case moves:
		return d.move(ctx, tenant, list, to.Grow)
	}
	c, _ := d.region.layout.Cell(tenant)
	return placementOf(tenant, c), nil
}

// placeEmpty has write say where a tenant lives that has nothing anywhere. It reports whether it
// has something.
func (d *desk) placeEmpty(ctx context.Context, tenant string, write func(context.Context) (layout.Cell, error)) (some bool, err error) {
	begun := time.Now()
	by := fmt.Sprint(d.name, " ", time.Now().UnixNano())
	if !d.shards.Hold(tenant, by, holdTime) {
		return false, errHeld(tenant)
	}
	defer func() {
		d.shards.Release(tenant, by)
		d.askOthers(context.WithoutCancel(ctx), &question{What: askHold, Tenant: tenant, By: by, Undo: true})
	}()
	// From here on only this command says where it lives; what others have said before must be known.
	known, _ := d.region.layout.Cell(tenant)
	if err := d.allSay(ctx, &question{What: askHold, Tenant: tenant, By: by}, func(name string, r *reply) error {
		if r.Revision > known.Revision {
			return errs.New(errs.Unavailable, "%s knows revision %d of where %s lives, and %s only %d: give the command again in a moment, or at %s", name, r.Revision, tenant, d.name, known.Revision, name)
		}
		return nil
	}); err != nil {
		return false, err
	}
	if some, err := d.hasSome(tenant); some || err != nil {
		return some, err
	}
	if took := time.Since(begun); took > holdTime/2 {
		return false, errs.New(errs.Unavailable, "the brokers took %v to say what the tenant has, too long to hold its clients back: give the command again", took.Round(time.Millisecond))
	}
	writing, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := write(writing)
	if err != nil {
		return false, err
	}
	d.log.Warn("a tenant that has nothing is placed", slog.String("tenant", tenant), slog.Any("partitions", c.Partitions), slog.Bool("purged", c.Purged), slog.Uint64("revision", c.Revision))
	for begun := time.Now(); ; {
		err := d.allSay(ctx, &question{What: askCell, Tenant: tenant}, func(name string, r *reply) error {
			if r.Revision < c.Revision {
				return errs.New(errs.Unavailable, "%s has not heard of it", name)
			}
			return nil
		})
		if err == nil {
			return false, nil
		}
		if ctx.Err() != nil || time.Since(begun) > 2*askTime {
			return false, errs.New(errs.Unavailable, "the record is written, and not all brokers have said that they have it, which they get by themselves: look again with tenant show at each before its clients come: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(placeTick):
		}
	}
}

// errHeld refuses to place a tenant that is being placed.
func errHeld(tenant string) error {
	return errs.New(errs.Conflict, "%s is being placed by another command: look at tenant show, and give this one again", tenant)
}

// placeFor are the partitions that Place is asked for.
func (d *desk) placeFor(tenant string, to operate.Place) (list []partition.ID, err error) {
	if to.Grow > 0 {
		return d.region.layout.Draw(tenant, to.Grow), nil
	}
	if label := to.Label; label != "" {
		if label, err = layout.Normal(label); err != nil {
			return nil, err
		}
		if label == "" {
			return nil, errs.New(errs.Invalid, "the label shared is nobody's own: say --shared, or another label")
		}
		if list = d.region.layout.Labelled(label); len(list) == 0 {
			return nil, errs.New(errs.Conflict, "no partition has the label %s: give it to reserved ones first, with partition label LIST %s", label, label)
		}
	}
	for _, id := range to.Partitions {
		if id < 0 || id >= d.config.Partitions {
			return nil, errs.New(errs.NotFound, "expected partitions from 0 to %d, found %d", d.config.Partitions-1, id)
		}
		list = append(list, partition.ID(id))
	}
	return list, nil
}

// hasSome reports whether a tenant has a session or a retained message anywhere. The error
// is Unavailable, if a broker does not answer.
func (d *desk) hasSome(tenant string) (bool, error) {
	// In this order: a client that has gone when it is looked for has left what usage says.
	clients := d.shards.Ask(&link.Query{Kind: link.QueryClients, Tenant: tenant, Limit: operate.MostRows})
	usage := d.shards.Ask(&link.Query{Kind: link.QueryUsage, Tenant: tenant})
	for _, a := range []*link.Answer{usage, clients} {
		if a.Error != "" {
			return false, errs.New(errs.Unavailable, "it is not known what the tenant has: %s", a.Error)
		}
	}
	return usage.Usage.Retained > 0 || slices.ContainsFunc(clients.Clients, func(c link.ClientInfo) bool {
		return c.Labels.Listener != link.ListenerAPI // whose sessions end with them, in any partition
	}), nil
}

// allSay asks all other brokers, each of which must answer, and be right if that is not nil. The
// error is Unavailable, or what right says.
func (d *desk) allSay(ctx context.Context, q *question, right func(name string, r *reply) error) error {
	all := d.askOthers(ctx, q)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		r := all[name]
		if r.Error != "" {
			return errs.New(errs.Unavailable, "%s: %s", name, r.Error)
		}
		if right == nil {
			continue
		}
		if err := right(name, &r); err != nil {
			return err
		}
	}
	return nil
}
