// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// commands are all commands by their paths.
func commands() map[string]*command {
	all := map[string]*command{
		"cluster/show":          {run: clusterShow},
		"cluster/gateways":      {run: clusterGateways},
		"cluster/join":          {run: clusterJoin},
		"cluster/drain":         {changes: true, args: []string{"node", "undo"}, run: clusterDrain},
		"cluster/leave":         {changes: true, args: []string{"node", "force"}, run: clusterLeave},
		"cluster/token/create":  {changes: true, args: []string{"ttl", "node"}, run: tokenCreate},
		"cluster/rebalance":     {run: clusterRebalance},
		"cluster/upgrade-check": {run: clusterUpgradeCheck},
		"node/status":           {args: []string{"node"}, run: nodeStatus},
		"partition/show":        {args: []string{"partition", "state"}, run: partitionShow},
		"partition/label":       {changes: true, args: []string{"partitions", "label", "replicas"}, run: partitionLabel},
		"tenant/show":           {args: []string{"tenant", "purged"}, run: tenantShow},
		"tenant/place":          {changes: true, args: []string{"tenant", "partitions", "dedicated", "shared", "grow"}, run: tenantPlace},
		"cluster/config/show":   {run: configShow},
		"cluster/config/set":    {changes: true, args: []string{"name", "value"}, run: configSet},
		"partition/abandon":     {changes: true, args: []string{"partition", "yes"}, run: partitionAbandon},
		"session/show":          {anyArgs: true, run: sessionShow},
	}
	all["cluster"], all["sessions"] = all["cluster/show"], all["session/show"]
	return all
}

func names(all map[string]*command) []string { return slices.Sorted(maps.Keys(all)) }

func clusterShow(_ context.Context, c Cluster, _ url.Values) ([]Element, error) {
	var rows []Row
	for _, m := range c.Members() {
		rows = append(rows, Row{
			{"Node", m.Name},
			{"Running", m.Running()},
			{"State", stateOf(&m)},
			{"Since", m.Since.UTC().Format("2006-01-02T15:04:05Z")},
			{"Zone", m.Zone},
			{"Labels", strings.Join(m.Labels, " ")},
			{"Owned", m.Owned},
			{"Followed", m.Followed},
			{"Address", m.Cluster},
			{"Version", m.Version},
		})
	}
	return []Element{Table(rows)}, nil
}

// clusterGateways lists the gateways that have links to any broker that answers. A gateway
// that a broker lacks has no client there, or cannot reach it.
func clusterGateways(ctx context.Context, c Cluster, _ url.Values) ([]Element, error) {
	nodes := c.Nodes(ctx)
	type gateway struct {
		links   int
		since   time.Time
		brokers []string
	}
	all := map[string]*gateway{}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		for _, g := range nodes[node].Gateways {
			x := all[g.Name]
			if x == nil {
				x = &gateway{since: g.Since}
				all[g.Name] = x
			}
			if g.Since.Before(x.since) {
				x.since = g.Since
			}
			x.links += g.Links
			x.brokers = append(x.brokers, node)
		}
	}
	var rows []Row
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x := all[name]
		rows = append(rows, Row{
			{"Gateway", name},
			{"Brokers", strings.Join(x.brokers, " ")},
			{"Of", len(nodes)},
			{"Links", x.links},
			{"Since", x.since.UTC().Format("2006-01-02T15:04:05Z")},
		})
	}
	return []Element{Table(rows)}, nil
}

// stateOf is the word for how a member does.
func stateOf(m *Member) string {
	switch {
	case m.State != "alive":
		return m.State
	case m.Stopping:
		return "stopping"
	case m.Starting:
		return "starting"
	case m.Draining && m.Owned+m.Followed == 0:
		return "drained"
	case m.Draining:
		return "draining"
	default:
		return m.State
	}
}

func clusterJoin(context.Context, Cluster, url.Values) ([]Element, error) {
	return []Element{Text(`A broker joins by being started: with an empty data folder, a name of its own, cluster.listen set, and a join token
("cluster token create"): brokerd --name NAME --join HOST:PORT --token TOKEN, where HOST:PORT is the join listener of a
broker. Or with the nats.urls of the cluster and a certificate of the region's CA that has its name. It is in
"cluster show" a second later, and gets its share of the partitions by itself ("cluster rebalance" says what is left).`)}, nil
}

func tokenCreate(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	ttl := time.Hour
	if args.Has("ttl") {
		var err error
		if ttl, err = time.ParseDuration(args.Get("ttl")); err != nil {
			return nil, errs.New(errs.Invalid, "expected a ttl such as 1h, found %q", args.Get("ttl"))
		}
	}
	token, err := c.Token(ctx, ttl, args.Get("node"))
	if err != nil {
		return nil, err
	}
	return []Element{Text(token)}, nil
}

// oneNode is the member that the argument node names; Invalid or NotFound.
func oneNode(c Cluster, args url.Values) (*Member, error) {
	name := args.Get("node")
	if name == "" {
		return nil, errs.New(errs.Invalid, "expected --node and the name of a broker")
	}
	members := c.Members()
	var all []string
	for i := range members {
		if members[i].Name == name {
			return &members[i], nil
		}
		all = append(all, members[i].Name)
	}
	return nil, errs.New(errs.NotFound, "there is no broker %q; expected one of: %s", name, strings.Join(all, ", "))
}

// flag reports whether a flag is set: it is there, and not false.
func flag(args url.Values, name string) bool {
	return args.Has(name) && args.Get(name) != "false" && args.Get(name) != "off"
}

func clusterDrain(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	m, err := oneNode(c, args)
	if err != nil {
		return nil, err
	}
	if m.State != "alive" {
		return nil, errs.New(errs.Conflict, "%s is %s and cannot hand anything over: start it or, if it will not come back, give it up: cluster leave --node %s --force", m.Name, m.State, m.Name)
	}
	undo := flag(args, "undo")
	if !undo && !slices.ContainsFunc(c.Members(), func(o Member) bool {
		return o.Name != m.Name && o.State == "alive" && !o.Draining && !o.Stopping
	}) {
		return nil, errs.New(errs.Conflict, "there is no other broker that could take what %s has", m.Name)
	}
	if err := c.Drain(ctx, m.Name, undo); err != nil {
		return nil, err
	}
	if undo {
		return []Element{Text(m.Name + " takes partitions again")}, nil
	}
	return []Element{Text(fmt.Sprintf("%s gives up its partitions: it owns %d and follows %d", m.Name, m.Owned, m.Followed))}, nil
}

func clusterLeave(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	m, err := oneNode(c, args)
	if err != nil {
		return nil, err
	}
	force := flag(args, "force")
	switch {
	case force && m.State == "alive":
		return nil, errs.New(errs.Conflict, "%s is alive: let it drain and leave; --force is for a broker that is down and does not come back", m.Name)
	case !force && m.State != "alive":
		return nil, errs.New(errs.Conflict, "%s is %s, and cannot hand anything over: start it, or give it up with --force, which leaves what it alone has behind", m.Name, m.State)
	case !force && !m.Draining:
		return nil, errs.New(errs.Conflict, "%s owns %d partitions and follows %d: drain it first", m.Name, m.Owned, m.Followed)
	case !force && m.Owned+m.Followed > 0:
		return nil, errs.New(errs.Conflict, "%s still owns %d partitions and follows %d: wait until it is drained", m.Name, m.Owned, m.Followed)
	}
	lost, err := c.Leave(ctx, m.Name, force)
	if err != nil {
		return nil, err
	}
	out := []Element{Text(m.Name + " is no member any more: its process ends, and starts again only with an empty data folder")}
	if len(lost) > 0 {
		out = append(out, Text(fmt.Sprintf("%d partitions have no other replica in sync and are not served: %s. "+
			`"partition show" says what there is of them, "partition abandon" gives the rest up`, len(lost), ranges(lost))))
	}
	return out, nil
}

// ranges writes ascending numbers shortly.
func ranges(ids []int) string {
	var b strings.Builder
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(ids[i]))
		if j > i {
			b.WriteString("-" + strconv.Itoa(ids[j]))
		}
		i = j + 1
	}
	return b.String()
}

func clusterRebalance(ctx context.Context, c Cluster, _ url.Values) ([]Element, error) {
	all, err := c.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	still, unknown := 0, 0
	var rows []Row
	for i := range all {
		p := &all[i]
		owner, copies := p.Moves()
		switch {
		case len(p.Wanted) == 0:
			unknown++
		case owner == "" && copies == 0 && len(p.Others) == 0 && len(p.InSync) == len(p.Wanted):
			still++
		default:
			rows = append(rows, Row{
				{"Partition", p.ID},
				{"Owner", p.Owner},
				{"To", p.Wanted[0]},
				{"In sync", strings.Join(p.InSync, " ")},
				{"Catching up", strings.Join(p.Others, " ")},
				{"Wanted", strings.Join(p.Wanted, " ")},
			})
		}
	}
	text := fmt.Sprintf("%d of %d partitions are where they should be; %d are to be moved or copied, which the brokers do by themselves", still, len(all), len(rows))
	if unknown > 0 {
		text += fmt.Sprintf("; of %d it is not known, since no broker takes them now or the control plane is away", unknown)
	}
	out := []Element{Text(text)}
	if len(rows) > 0 {
		out = append(out, Table(rows))
	}
	return out, nil
}

func clusterUpgradeCheck(ctx context.Context, c Cluster, _ url.Values) ([]Element, error) {
	var rows []Row
	versions := map[string]bool{}
	nodes := c.Nodes(ctx)
	var away []string
	least, most := uint8(1), uint8(math.MaxUint8) // what all speak
	for _, m := range c.Members() {
		row := Row{{"Node", m.Name}, {"State", stateOf(&m)}, {"Version", m.Version}}
		n, answers := nodes[m.Name]
		if answers {
			low, high := max(n.Speaks[0], 1), max(n.Speaks[1], 1)
			least, most = max(least, low), min(most, high)
			row = append(row, Row{{"Speaks", fmt.Sprintf("%d to %d", low, high)}, {"Store", max(n.StoreVersion, 1)}}...)
		} else {
			row = append(row, Row{{"Speaks", ""}, {"Store", ""}}...)
		}
		rows = append(rows, row)
		versions[m.Version] = true
		if m.State != "alive" {
			away = append(away, m.Name)
		}
	}
	text := "all brokers run the same version"
	switch {
	case len(away) > 0:
		text = "not all brokers are alive (" + strings.Join(away, ", ") + "): upgrade no other before they are"
	case least > most:
		text = "some brokers have no version in common and no links to each other: update the older ones, one at a time"
	case len(versions) > 1:
		text = "brokers run different versions: go on until all run the same, one at a time, each when all partitions are in sync"
	}
	out := []Element{Table(rows), Text(text)}
	if most < math.MaxUint8 && least <= most {
		out = append(out, Text(fmt.Sprintf("brokers speak version %d with each other; software that speaks it, too, can join. "+
			"A store of an older version is upgraded when newer software starts with it, and older software refuses it from then on", most)))
	}
	return out, nil
}

func partitionShow(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	all, err := c.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	if args.Has("partition") {
		p, err := onePartition(all, args)
		if err != nil {
			return nil, err
		}
		copies, err := c.Copies(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		return []Element{Table([]Row{partitionRow(p)}), Table(copyRows(copies))}, nil
	}
	state := args.Get("state")
	if state != "" && !slices.Contains(States(), state) {
		return nil, errs.New(errs.Invalid, "expected --state and one of: %s; found %q", strings.Join(States(), ", "), state)
	}
	var rows []Row
	for i := range all {
		if state == "" || all[i].State == state {
			rows = append(rows, partitionRow(&all[i]))
		}
	}
	return []Element{Table(rows)}, nil
}

func partitionRow(p *Partition) Row {
	state := p.State
	if p.Draining {
		state += ", draining"
	}
	return Row{
		{"Partition", p.ID},
		{"State", state},
		{"Owner", p.Owner},
		{"In sync", strings.Join(p.InSync, " ")},
		{"Catching up", strings.Join(p.Others, " ")},
		{"Replicas", fmt.Sprintf("%d of %d", len(p.InSync), p.Replicas)},
		{"Label", p.Label},
		{"Wanted", strings.Join(p.Wanted, " ")},
		{"Epoch", p.Epoch},
	}
}

func copyRows(copies []Copy) []Row {
	var rows []Row
	for _, x := range copies {
		kind := x.Kind
		if !x.Answers {
			kind = "does not answer"
		}
		rows = append(rows, Row{{"Node", x.Node}, {"Copy", kind}, {"Role", x.Role}, {"Epoch", x.Epoch}, {"N", x.N}})
	}
	return rows
}

// onePartition is what the argument partition names; Invalid or NotFound.
func onePartition(all []Partition, args url.Values) (*Partition, error) {
	id, err := strconv.Atoi(args.Get("partition"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected the number of a partition, found %q", args.Get("partition"))
	}
	if id < 0 || id >= len(all) {
		return nil, errs.New(errs.NotFound, "there are the partitions 0 to %d, not %d", len(all)-1, id)
	}
	return &all[id], nil
}

func partitionAbandon(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	all, err := c.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	p, err := onePartition(all, args)
	if err != nil {
		return nil, err
	}
	if p.State == InSync || p.State == Degraded {
		return nil, errs.New(errs.Conflict, "partition %d is served by %s: there is nothing to abandon", p.ID, p.Owner)
	}
	if !flag(args, "yes") {
		return nil, errs.New(errs.Invalid, "abandoning partition %d gives up for ever what only %s may have of it: "+
			"sessions, queues, retained messages, also acknowledged ones. Bring one of these back if that is possible; else repeat with --yes",
			p.ID, strings.Join(p.InSync, ", "))
	}
	to, err := c.Abandon(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	from := "an empty copy: all of its sessions, queues and retained messages are lost"
	if to.Kind == "whole" || to.Kind == "suspect" {
		from = fmt.Sprintf("the copy that %s has (%s, up to record %d of epoch %d): what was written later is lost", to.Node, to.Kind, to.N, to.Epoch)
	}
	return []Element{Text(fmt.Sprintf("partition %d goes on at %s from %s", p.ID, to.Node, from))}, nil
}
