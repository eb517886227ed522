// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
)

// AddRoute implements Cluster.
func (n *wideNode) AddRoute(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	n.put(wideKey{tenant, filter, p}, wideValue{epoch: epoch}, true, reached)
}

// AwaitRoute implements Cluster.
func (n *wideNode) AwaitRoute(tenant, filter string, p partition.ID, reached func()) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.tellLocked(wideKey{tenant, filter, p}, reached)
}

// Gaining implements Cluster.
func (n *wideNode) Gaining(partition.ID, uint64) {}

// RemoveRoute implements Cluster.
func (n *wideNode) RemoveRoute(tenant, filter string, p partition.ID, epoch uint64) {
	n.put(wideKey{tenant, filter, p}, wideValue{epoch: epoch}, false, nil)
}

// SetGroup implements Cluster.
func (n *wideNode) SetGroup(tenant, key string, p partition.ID, epoch uint64, members, online, durable int) {
	n.put(wideKey{tenant, key, p}, wideValue{epoch, online, durable}, members > 0, nil)
}

func (n *wideNode) put(k wideKey, v wideValue, present bool, reached func()) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.deadLocked() {
		return
	}
	if v.epoch <= n.lost[k.part] {
		w.t.Errorf("%s tells of %+v, which it has lost", n.name, k)
	}
	if old, ok := w.keys[k]; !ok || old.epoch <= v.epoch {
		if present {
			w.keys[k] = v
		} else {
			delete(w.keys, k)
		}
	}
	w.tellLocked(k, reached)
}

// tellLocked has all brokers that live hear of a key, and calls reached then.
func (w *wide) tellLocked(k wideKey, reached func()) {
	v, present := w.keys[k]
	var left sync.WaitGroup
	for _, n := range w.nodes {
		if !n.deadLocked() {
			left.Add(1)
			dead, told := n.dead, make(chan struct{})
			n.tellLocked(k, v, present)
			n.told.put(func() { close(told) })
			go func() {
				defer left.Done()
				select {
				case <-told:
				case <-dead:
				}
			}()
		}
	}
	if reached != nil {
		go func() { left.Wait(); reached() }()
	}
}

func (n *wideNode) tellLocked(k wideKey, v wideValue, present bool) {
	set, group := n.set, strings.HasPrefix(k.filter, topic.SharePrefix)
	n.told.put(func() {
		switch {
		case !group:
			set.FarRoute(k.tenant, k.filter, k.part, present)
		case present:
			set.FarGroup(k.tenant, k.filter, k.part, v.online, v.durable)
		default:
			set.FarGroup(k.tenant, k.filter, k.part, 0, 0)
		}
	})
}

// Gained implements Cluster: the keys that the partition has not go.
func (n *wideNode) Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.deadLocked() || w.parts[p].owner != n.name {
		return
	}
	for k, v := range w.keys {
		if k.part == p && v.epoch < epoch && !has(k.tenant, k.filter) {
			delete(w.keys, k)
			w.tellLocked(k, nil)
		}
	}
}

// Lost implements Cluster.
func (n *wideNode) Lost(p partition.ID, epoch uint64) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.lost[p] = epoch
	for k, v := range n.w.keys { // the groups are told again
		if k.part == p && strings.HasPrefix(k.filter, topic.SharePrefix) && !n.deadLocked() {
			n.tellLocked(k, v, true)
		}
	}
}

// Recheck implements Cluster.
func (n *wideNode) Recheck(tenant, filter string, p partition.ID) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if k := (wideKey{tenant, filter, p}); !n.deadLocked() {
		v, present := n.w.keys[k]
		n.tellLocked(k, v, present)
	}
}

// A broker that hears of a group of a partition's next owner before it knows that it has lost the
// partition itself knows the group when it does.
func TestWide_GroupHeardBeforeTheLoss(t *testing.T) {
	t.Parallel()
	w := servedWide(t)
	a, b := w.nodes[0], w.nodes[1]
	id := a.idAt("m", 0)
	p := partition.Choose(a.set.cell, id)
	w.mu.Lock()
	x := &w.parts[p]
	w.commitLocked(p, len(x.log), nil, true)
	x.owner = b.name
	x.epoch++
	epoch := x.epoch
	w.mu.Unlock()
	b.set.Serve(p, epoch)
	b.eventually(t, "served", func() bool { return b.set.Serves(p) })
	v := b.visit(t, mqtt.ClientID(id), func(o *link.Open) { o.Guest = false; allowed(o) })
	v.want(link.DownOpened)
	v.send(subscribeTo("$share/g/t"))
	v.want(link.DownSuback) // all have been told
	a.set.Lose(p)
	all := []partition.ID{0, 1, 2, 3, 4, 5, 6, 7}
	a.eventually(t, "the group known at the broker that had the partition", func() bool {
		return a.set.Tenant("acme").routes.Groups() == 1 && a.set.Tenant("acme").routes.Digest(all) == b.set.Tenant("acme").routes.Digest(all)
	})
}

// While a broker forgets the many sessions of a partition that it has lost, a group whose members
// were all in it has somebody at any moment: what another shard publishes is not acknowledged for
// nobody.
func TestWide_GroupWhileItsPartitionIsLost(t *testing.T) {
	t.Parallel()
	w := servedWide(t)
	a := w.nodes[0]
	const key = "$share/g/t"
	id := a.idAt("m", 0)
	p := partition.Choose(a.set.cell, id)
	m := a.own(t, id)
	m.send(subscribeTo(key))
	m.want(link.DownSuback)
	for i, n := 0, 0; n < 2000; i++ {
		if o := fmt.Sprint("z", i); partition.Choose(a.set.cell, o) == p {
			a.visit(t, mqtt.ClientID(o), func(o *link.Open) { o.Guest = false })
			n++
		}
	}
	a.eventually(t, "all there", func() bool { return a.set.Tenant("acme").all.Load() == 2001 })
	stop, missed := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			if g := a.set.Tenant("acme").routes.Group(key, "t"); g == nil {
				n++
			} else if _, _, ok := g.Pick(nil); !ok {
				n++
			}
			select {
			case <-stop:
				missed <- n
				return
			default:
			}
		}
	}()
	a.set.Lose(p)
	a.eventually(t, "forgotten", func() bool { return a.set.Tenant("acme").all.Load() == 0 })
	close(stop)
	if n := <-missed; n > 0 {
		t.Errorf("the group had nobody %d times", n)
	}
}
