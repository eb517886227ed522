// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// nodeStatus is a table with a row for each figure and a column for each node.
func nodeStatus(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	nodes := c.Nodes(ctx)
	if args.Has("node") {
		m, err := oneNode(c, args)
		if err != nil {
			return nil, err
		}
		n, ok := nodes[m.Name]
		if !ok {
			return nil, errs.New(errs.Unavailable, "%s is %s and does not answer", m.Name, m.State)
		}
		nodes = map[string]Node{m.Name: n}
	}
	order := slices.Sorted(maps.Keys(nodes))
	rows := []Row{}
	for _, name := range order {
		n := nodes[name]
		for i, f := range figures(&n) {
			if len(rows) <= i {
				rows = append(rows, Row{{"Figure", f.Name}})
			}
			rows[i] = append(rows[i], Cell{name, f.Value})
		}
	}
	out := []Element{Table(rows)}
	for _, m := range c.Members() {
		if _, ok := nodes[m.Name]; !ok && !args.Has("node") {
			out = append(out, Text(m.Name+" is "+m.State+" and does not answer"))
		}
	}
	for _, name := range order {
		for _, p := range nodes[name].Problems {
			out = append(out, Text(name+": "+p))
		}
	}
	return out, nil
}

// figures are those of /status.json that are numbers or words, in its order.
func figures(n *Node) []Cell {
	reached := 0
	for _, m := range n.MyStatus {
		for _, ok := range m {
			if ok {
				reached++
			}
		}
	}
	var listeners []string
	for _, l := range n.Listeners {
		listeners = append(listeners, fmt.Sprintf("%s %s:%s %s", l.Type, l.IP, l.Port, l.Status))
	}
	cells := []Cell{
		{"num_online", n.NumOnline},
		{"num_offline", n.NumOffline},
		{"msg_in", n.MsgIn},
		{"msg_out", n.MsgOut},
		{"queue_in", n.QueueIn},
		{"queue_out", n.QueueOut},
		{"queue_drop", n.QueueDrop},
		{"queue_unhandled", n.QueueUnhandled},
		{"num_queued", n.NumQueued},
		{"num_subscriptions", n.NumSubscriptions},
		{"num_retained", n.NumRetained},
		{"matches_local", n.MatchesLocal},
		{"matches_remote", n.MatchesRemote},
		{"reaches", fmt.Sprintf("%d of %d", reached, len(n.MyStatus))},
		{"bus_up", n.BusUp},
		{"bus_age_seconds", n.BusAge},
		{"load", n.Load},
	}
	for _, state := range slices.Sorted(maps.Keys(n.Partitions)) {
		cells = append(cells, Cell{"partitions_" + state, n.Partitions[state]})
	}
	return append(cells, Cell{"zone", n.Zone}, Cell{"listeners", strings.Join(listeners, ", ")}, Cell{"version", n.Version})
}

// fields are the fields that session show knows, in the order of its columns.
var fields = []string{
	"node", "mountpoint", "client_id", "user", "peer_host", "peer_port", "protocol", "is_online", "is_offline", "statename",
	"clean_session", "num_sessions", "queue_size", "online_messages", "offline_messages", "waiting_acks", "session_started_at",
	"listener", "gateway", "topic", "qos", "rap", "no_local",
}

// SessionFields are the fields of session show, in the order of its columns.
func SessionFields() []string { return slices.Clone(fields) }

// shown are the columns without any asked for.
var shown = []string{"client_id", "is_online", "mountpoint", "peer_host", "peer_port", "user"}

// MostRows is how many rows session show gives at most of each broker.
const MostRows = 1000

func sessionShow(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	q := SessionQuery{Filters: map[string]string{}, Limit: 100}
	columns := map[string]bool{} // those asked for by a flag without a value
	for name := range args {
		value := args.Get(name)
		if name == "limit" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > MostRows {
				return nil, errs.New(errs.Invalid, "--limit: expected 1 to %d rows of each broker, found %q", MostRows, value)
			}
			q.Limit = n
			continue
		}
		if !slices.Contains(fields, name) {
			return nil, errs.New(errs.Invalid, "there is no field %q; expected some of: %s", name, strings.Join(fields, ", "))
		}
		if value == "" {
			columns[name] = true
		} else {
			q.Filters[name] = value
		}
		q.Topics = q.Topics || name == "topic" || name == "qos" || name == "rap" || name == "no_local"
	}
	// As VerneMQ: a filter selects its field only where no column is asked for.
	order := slices.DeleteFunc(SessionFields(), func(f string) bool {
		_, filtered := q.Filters[f]
		return !columns[f] && (len(columns) > 0 || !filtered)
	})
	if len(order) == 0 {
		order = shown
	}
	sessions, err := c.Sessions(ctx, q)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, s := range sessions {
		var r Row
		for _, f := range order {
			r = append(r, Cell{f, s[f]})
		}
		rows = append(rows, r)
	}
	return []Element{Table(rows)}, nil
}

// String is a value of a table as people read it.
func String(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}
