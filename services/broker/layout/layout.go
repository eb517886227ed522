// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// The spaces of the metadata.
const (
	classSpace   = "partitions"
	cellSpace    = "placement"
	settingSpace = "settings"
)

// Config is what a Layout is made of.
type Config struct {
	Store *metadata.Store
	// Partitions is how many the region has, and Reserved how many of them, the last
	// ones, are drawn for nobody. They must be the same on every broker, for ever.
	Partitions, Reserved int
	// Replicas is how many brokers hold a partition if neither its Class nor the
	// settings of the cluster say it, 1 to MostReplicas.
	Replicas int
	// Changed hears of the cell of a tenant, when it is read, drawn or changed; of two
	// calls the one with the higher Revision holds. It must not wait; nil is nothing to do.
	Changed func(tenant string, c Cell)
	Log     *slog.Logger
}

// Layout is what a broker knows of where things belong. Its methods may be called
// concurrently.
type Layout struct {
	config Config
	// drawnFrom are the partitions that are not reserved.
	drawnFrom []partition.ID

	classes  *metadata.Space[Class]
	cells    *metadata.Space[Cell]
	settings *metadata.Space[int]

	mu struct {
		sync.RWMutex
		classes  map[partition.ID]Class
		cells    map[string]Cell
		moving   map[string]bool // those of cells that are not Settled
		settings map[string]int
	}
}

// New reads what the store has. What changes later it hears while the store runs.
func New(c Config) (*Layout, error) {
	l := &Layout{
		config:   c,
		classes:  metadata.NewSpace(c.Store, classSpace, classCodec),
		cells:    metadata.NewSpace(c.Store, cellSpace, cellCodec),
		settings: metadata.NewSpace(c.Store, settingSpace, numberCodec),
	}
	l.mu.classes, l.mu.cells, l.mu.settings = make(map[partition.ID]Class), make(map[string]Cell), make(map[string]int)
	l.mu.moving = make(map[string]bool)
	for p := range partition.ID(c.Partitions - c.Reserved) {
		l.drawnFrom = append(l.drawnFrom, p)
	}
	// What a later version wrote is left out, here as in the watch.
	for _, err := range []error{
		read(&c, classSpace, classCodec, l.setClass), read(&c, cellSpace, cellCodec, l.setCell), read(&c, settingSpace, numberCodec, l.setSetting),
	} {
		if err != nil {
			return nil, fmt.Errorf("layout of the cluster: %w", err)
		}
	}
	watch(l.classes, c.Log, l.setClass)
	watch(l.cells, c.Log, l.setCell)
	watch(l.settings, c.Log, l.setSetting)
	return l, nil
}

func read[T any](c *Config, space string, codec metadata.Codec[T], set func(name string, item *metadata.Item[T])) error {
	return c.Store.Range(space, func(k metadata.Key, v metadata.Value) bool {
		if x, err := codec.Decode(v.Bytes); err == nil {
			set(k.Name, &metadata.Item[T]{Name: k.Name, Value: x, Rank: v.Rank})
		}
		return true
	})
}

func watch[T any](s *metadata.Space[T], log *slog.Logger, set func(name string, item *metadata.Item[T])) {
	s.Watch(func(all []metadata.Update[T]) {
		for _, u := range all {
			set(u.Name, u.New)
		}
	}, func(err error) { log.Error("the layout of the cluster is not readable", slog.Any("error", err)) })
}

func (l *Layout) setClass(name string, i *metadata.Item[Class]) {
	p, ok := parsePartitionKey(name)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i == nil {
		delete(l.mu.classes, p)
		return
	}
	l.mu.classes[p] = i.Value
}

func (l *Layout) setCell(tenant string, i *metadata.Item[Cell]) {
	if i == nil {
		return // they are never deleted
	}
	c := i.Value
	c.Revision = i.Rank
	l.mu.Lock()
	old := l.mu.cells[tenant]
	if c.Revision >= old.Revision {
		if l.mu.cells[tenant] = c; c.Stage != Settled {
			l.mu.moving[tenant] = true
		} else {
			delete(l.mu.moving, tenant)
		}
	}
	l.mu.Unlock()
	if c.Revision > old.Revision {
		l.changed(tenant, c)
	}
}

func (l *Layout) changed(tenant string, c Cell) {
	if l.config.Changed != nil {
		l.config.Changed(tenant, c)
	}
}

// Class is that of a partition, with the number of replicas that it should have.
func (l *Layout) Class(p partition.ID) Class {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.mu.classes[p]
	if c.Replicas == 0 {
		c.Replicas = l.settingLocked(&settingReplicas)
	}
	return c
}

// Replicas and Label are those of the Class.
func (l *Layout) Replicas(p partition.ID) int { return l.Class(p).Replicas }

// Label is that of the Class.
func (l *Layout) Label(p partition.ID) string { return l.Class(p).Label }

// Labelled are the partitions with a label, in order.
func (l *Layout) Labelled(label string) (out []partition.ID) {
	for p := range partition.ID(l.config.Partitions) {
		if l.Label(p) == label {
			out = append(out, p)
		}
	}
	return out
}

// Shared is how many partitions are not reserved: those below that number.
func (l *Layout) Shared() int { return len(l.drawnFrom) }

// Said is what has been said of a partition: Replicas is 0 if nobody has.
func (l *Layout) Said(p partition.ID) Class {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.classes[p]
}

// SetClasses says the classes of partitions. It returns when they are durable and the
// brokers that can be reached have them, or with ctx. The error is Invalid or Unavailable.
func (l *Layout) SetClasses(ctx context.Context, classes map[partition.ID]Class) error {
	var all []metadata.Mutation
	for p, c := range classes {
		if c.Replicas < 0 || c.Replicas > MostReplicas || len(c.Label) > MostLabel || c.Label == Shared {
			return errs.New(errs.Invalid, "expected 1 to %d replicas and a label of up to %d bytes, found %d and %q", MostReplicas, MostLabel, c.Replicas, c.Label)
		}
		if int(p) >= l.config.Partitions {
			return errs.New(errs.Invalid, "expected partitions from 0 to %d, found %d", l.config.Partitions-1, p)
		}
		all = append(all, l.classes.Put(partitionKey(p), c, 0))
	}
	return l.write(ctx, all)
}

// write makes mutations and waits until those that can be reached have them.
func (l *Layout) write(ctx context.Context, all []metadata.Mutation) error {
	failed, reached := make(chan error, 1), make(chan struct{})
	l.config.Store.Write(all, func(err error) {
		if err != nil {
			failed <- err
		}
	}, func() { close(reached) })
	select {
	case err := <-failed:
		return err
	case <-reached:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "it is not known whether the metadata has been written: look at it again: %w", ctx.Err())
	}
}

// Cell is the record of a tenant; ok is false if there is none.
func (l *Layout) Cell(tenant string) (c Cell, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c, ok = l.mu.cells[tenant]
	return c, ok
}

// Partitions are those of a tenant: of its record, or of the m that its plan has, 0
// for all that are not reserved. The result is not to be changed.
func (l *Layout) Partitions(tenant string, m int) []partition.ID {
	if c, _ := l.Cell(tenant); len(c.Partitions) > 0 {
		return c.Partitions
	}
	return l.Draw(tenant, m)
}

// Open returns the cell of a tenant that comes, m being that of its plan. It has the
// one record written that there is to be; it does not wait. A tenant of all partitions
// has none, and a Cell of the Revision 0.
func (l *Layout) Open(tenant string, m int) Cell {
	if c, ok := l.Cell(tenant); ok && len(c.Partitions) > 0 {
		return c
	}
	list := l.Draw(tenant, m)
	l.mu.Lock()
	c, ok := l.mu.cells[tenant]
	switch {
	case len(c.Partitions) > 0:
		l.mu.Unlock()
		return c
	case ok, len(list) == len(l.drawnFrom): // given back to its plan; or no plan's
		l.mu.Unlock()
		return Cell{Partitions: list, Revision: c.Revision}
	}
	c = Cell{Partitions: list, Revision: drawn}
	l.mu.cells[tenant] = c
	l.mu.Unlock()
	l.changed(tenant, c)
	l.config.Store.Write([]metadata.Mutation{l.cells.Put(tenant, c, drawn)}, func(err error) {
		if err != nil && !errs.Is(err, errs.Conflict) { // of an operator's, which stands then
			l.config.Log.Error("the cell of a tenant is not recorded; it is drawn again after a restart", slog.String("tenant", tenant), slog.Any("error", err))
		}
	}, nil)
	return c
}

// Place says the cell of a tenant; no list gives it back to its plan. The caller has
// seen to it that the tenant has nothing in any partition, and that no broker lets it in
// meanwhile. It returns when the record is durable and the brokers that can be reached have it, or
// with ctx. The error is Invalid or Unavailable.
func (l *Layout) Place(ctx context.Context, tenant string, list []partition.ID) (Cell, error) {
	list, err := l.listFor(tenant, list)
	if err != nil {
		return Cell{}, err
	}
	return l.say(ctx, tenant, Cell{Partitions: list})
}

// Purge is Place of a tenant that is purged.
func (l *Layout) Purge(ctx context.Context, tenant string) (Cell, error) {
	return l.say(ctx, tenant, Cell{Purged: true})
}

func (l *Layout) say(ctx context.Context, tenant string, c Cell) (Cell, error) {
	old, _ := l.Cell(tenant)
	if old.Stage != Settled {
		return Cell{}, errMoves(tenant)
	}
	c.Revision = max(old.Revision, drawn) + 1
	return c, l.write(ctx, []metadata.Mutation{l.cells.Put(tenant, c, c.Revision)})
}

// listFor is a list of partitions as a Cell has it.
func (l *Layout) listFor(tenant string, list []partition.ID) ([]partition.ID, error) {
	if tenant == "" || len(tenant) > 255 {
		return nil, errs.New(errs.Invalid, "expected the id of a tenant, found %q", tenant)
	}
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	if n := len(list); n > 0 && int(list[n-1]) >= l.config.Partitions {
		return nil, errs.New(errs.Invalid, "expected partitions from 0 to %d, found %d", l.config.Partitions-1, list[n-1])
	}
	return list, nil
}

// errMoves refuses another place for a tenant that is on its way to one.
func errMoves(tenant string) error {
	return errs.New(errs.Conflict, "%s is on its way to other partitions: look at tenant show, and give the command again when it is there", tenant)
}

// Count is how many tenants have a record, and of how many of these an operator has said
// it.
func (l *Layout) Count() (all, placed int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, c := range l.mu.cells {
		if c.Placed() && !c.Purged {
			placed++
		}
	}
	return len(l.mu.cells), placed
}

// Cells calls f for the record of each tenant, in the order of their names.
func (l *Layout) Cells(f func(tenant string, c Cell)) {
	l.mu.RLock()
	all := maps.Clone(l.mu.cells)
	l.mu.RUnlock()
	for _, tenant := range slices.Sorted(maps.Keys(all)) {
		f(tenant, all[tenant])
	}
}
