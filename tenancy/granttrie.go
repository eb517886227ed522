// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"bytes"
	"math"
	"strings"

	"github.com/manormq/manor/infra/mqtt"
)

// noPriority is below every priority: no such entry.
const noPriority = math.MinInt32

// terminal is what the entries that end at one place say: the highest priority of
// those that deny, and of those that allow, with what these allow together.
type terminal struct {
	deny, allow int32
	mask        uint8
}

func (t *terminal) merge(with *terminal) {
	t.deny = max(t.deny, with.deny)
	switch {
	case with.allow > t.allow:
		t.allow, t.mask = with.allow, with.mask
	case with.allow == t.allow:
		t.mask |= with.mask
	}
}

// outcome gathers the terminals that match.
type outcome = terminal

// grantNode stands for the levels on the way to it. It does not change once its
// set is made.
type grantNode struct {
	level string
	few   []*grantNode          // literal levels, while they are few
	many  map[string]*grantNode // instead of few
	plus  *grantNode
	held  []*grantNode // levels with placeholders
	index int          // of such a level in its set
	// here ends here, hash with # below.
	here, hash terminal
	// denyBelow is the highest priority of what denies, here and below.
	denyBelow int32
	// heldBelow: something here or below has placeholders.
	heldBelow bool
}

// fewLevels is how many literal levels are found by looking at each.
const fewLevels = 8

func (n *grantNode) init() {
	none := terminal{deny: noPriority, allow: noPriority}
	n.here, n.hash, n.denyBelow = none, none, noPriority
}

func newGrantNode(level string) *grantNode {
	n := &grantNode{level: level}
	n.init()
	return n
}

// note says that something ends here or below, and whether its filter has
// placeholders.
func (n *grantNode) note(t *terminal, held bool) {
	n.denyBelow = max(n.denyBelow, t.deny)
	n.heldBelow = n.heldBelow || held
}

func (n *grantNode) make(level string) *grantNode {
	if k := n.literal([]byte(level)); k != nil {
		return k
	}
	k := newGrantNode(level)
	switch {
	case n.many != nil:
		n.many[level] = k
	case len(n.few) < fewLevels:
		n.few = append(n.few, k)
	default:
		n.many = map[string]*grantNode{level: k}
		for _, f := range n.few {
			n.many[f.level] = f
		}
		n.few = nil
	}
	return k
}

func (n *grantNode) makePlus() *grantNode {
	if n.plus == nil {
		n.plus = newGrantNode("+")
	}
	return n.plus
}

func (n *grantNode) makeHeld(index int) *grantNode {
	for _, k := range n.held {
		if k.index == index {
			return k
		}
	}
	k := newGrantNode("")
	k.index = index
	n.held = append(n.held, k)
	return k
}

func (n *grantNode) literal(level []byte) *grantNode {
	if n.many != nil {
		return n.many[string(level)]
	}
	for _, k := range n.few {
		if k.level == string(level) {
			return k
		}
	}
	return nil
}

// match gathers what matches the topic name, of which the levels from i on are
// left; i is behind its end if none is.
func (g *Grant) match(n *grantNode, topic []byte, i int, o *outcome) {
	dollar := i == 0 && topic[0] == '$' // [MQTT-4.7.2-1]
	if !dollar {
		o.merge(&n.hash)
	}
	if i > len(topic) {
		o.merge(&n.here)
		return
	}
	end := len(topic)
	if j := bytes.IndexByte(topic[i:], '/'); j >= 0 {
		end = i + j
	}
	level := topic[i:end]
	if k := n.literal(level); k != nil {
		g.match(k, topic, end+1, o)
	}
	if dollar {
		return
	}
	if n.plus != nil {
		g.match(n.plus, topic, end+1, o)
	}
	for _, k := range n.held {
		x := &g.values[k.index]
		if x.unsafe {
			o.deny = max(o.deny, k.denyBelow)
		}
		if x.has(level) {
			g.match(k, topic, end+1, o)
		}
	}
}

// coverage gathers what matches some of the names that a filter matches: of what
// allows only that which matches all of them. With narrows it gathers instead the
// lowest QoS of what allows some with a priority above.
type coverage struct {
	outcome
	narrows bool
	above   int32
	most    mqtt.QoS
}

func (c *coverage) add(t *terminal, all bool) {
	switch {
	case c.narrows:
		if t.allow > c.above {
			c.most = min(c.most, mostQoS(t.mask))
		}
	case all:
		c.merge(t)
	default:
		c.deny = max(c.deny, t.deny)
	}
}

// cover gathers what matches names that the filter matches, of which the levels
// from i on are left. all says that so far every such name is matched.
func (g *Grant) cover(n *grantNode, filter string, i int, all bool, c *coverage) {
	dollar := i == 0 && filter[0] == '$'
	if !dollar {
		c.add(&n.hash, all)
	}
	if i > len(filter) {
		c.add(&n.here, all)
		return
	}
	end := len(filter)
	if j := strings.IndexByte(filter[i:], '/'); j >= 0 {
		end = i + j
	}
	switch level := filter[i:end]; level {
	case "#":
		c.add(&n.here, false) // a/# matches a too
		g.below(n, i == 0, c)
	case "+":
		n.kids(i == 0, func(k *grantNode) { g.cover(k, filter, end+1, false, c) })
		if n.plus != nil {
			g.cover(n.plus, filter, end+1, all, c)
		}
		for _, k := range n.held {
			x := &g.values[k.index]
			c.unsafe(k, x)
			if len(x.texts) > 0 {
				g.cover(k, filter, end+1, false, c)
			}
		}
	default:
		if k := n.literal([]byte(level)); k != nil {
			g.cover(k, filter, end+1, all, c)
		}
		if dollar {
			return
		}
		if n.plus != nil {
			g.cover(n.plus, filter, end+1, all, c)
		}
		for _, k := range n.held {
			x := &g.values[k.index]
			c.unsafe(k, x)
			if x.has([]byte(level)) {
				g.cover(k, filter, end+1, all, c)
			}
		}
	}
}

// unsafe gathers what denies below a level whose value is unsafe.
func (c *coverage) unsafe(k *grantNode, x *expansion) {
	if x.unsafe && !c.narrows {
		c.deny = max(c.deny, k.denyBelow)
	}
}

// kids calls f for the literal levels below, at the root without the server's.
func (n *grantNode) kids(root bool, f func(*grantNode)) {
	for _, k := range n.few {
		if !root || !strings.HasPrefix(k.level, "$") {
			f(k)
		}
	}
	for level, k := range n.many {
		if !root || !strings.HasPrefix(level, "$") {
			f(k)
		}
	}
}

// below gathers all that is below n: every such entry matches some of the names
// that a filter with # here matches.
func (g *Grant) below(n *grantNode, root bool, c *coverage) {
	each := func(k *grantNode) {
		if !c.narrows && !k.heldBelow {
			c.deny = max(c.deny, k.denyBelow)
			return
		}
		c.add(&k.here, false)
		c.add(&k.hash, false)
		g.below(k, false, c)
	}
	n.kids(root, each)
	if n.plus != nil {
		each(n.plus)
	}
	for _, k := range n.held {
		x := &g.values[k.index]
		c.unsafe(k, x)
		if len(x.texts) > 0 {
			each(k)
		}
	}
}
