// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"slices"
	"time"
)

// Cluster is the brokers of a region, asked at one of them. Its methods are called
// concurrently; those with a context wait for other brokers, a few seconds at most.
// Errors are of infra/errs.
type Cluster interface {
	// Self is the name of the broker that is asked.
	Self() string
	// Members are all brokers in the order of their names.
	Members() []Member
	// Nodes are the figures of all brokers that answer, by name.
	Nodes(ctx context.Context) map[string]Node
	// Partitions are all partitions, in order.
	Partitions(ctx context.Context) ([]Partition, error)
	// Copies are what brokers have of a partition.
	Copies(ctx context.Context, id int) ([]Copy, error)
	// Sessions are sessions of all brokers that answer, ordered by node, tenant and
	// client. The error is Invalid for a question that makes no sense.
	Sessions(ctx context.Context, q SessionQuery) ([]Session, error)
	// Drain has a broker give up its partitions, or keep them again (undo). It does not
	// wait until they are gone.
	Drain(ctx context.Context, node string, undo bool) error
	// Leave makes a broker no member any more: one that has given up everything or, with
	// force, one that is down and will not come back with what it has. lost are the
	// partitions of which nobody else has a replica in sync.
	Leave(ctx context.Context, node string, force bool) (lost []int, err error)
	// Abandon gives up what nobody can serve of a partition: a broker that it names
	// becomes its owner with the copy that it has. The error is Conflict if the partition
	// is served, or may be again without that.
	Abandon(ctx context.Context, id int) (Copy, error)
	// SetClass has partitions be held by brokers that accept a label; replicas is how many
	// of them hold each, 0 what it was. Which they are now, and what they have, moves by
	// itself. The error is Conflict if there are too few such brokers.
	SetClass(ctx context.Context, ids []int, label string, replicas int) error
	// Placements are the records of tenants that have one, in the order of their names.
	Placements() []Placement
	// Place says where a tenant lives. What it has goes there; the Placement has a Stage if
	// that takes longer than the command waits. The error is Conflict if it moves already,
	// has more than can be handed over while its clients wait, or a broker is away, and
	// Unavailable if a broker does not answer.
	Place(ctx context.Context, tenant string, to Place) (Placement, error)
	// Progress is how far a tenant is that moves.
	Progress(ctx context.Context, tenant string) Progress
	// Settings are those of the cluster; Set changes one, and "default" is no value.
	Settings() []Setting
	Set(ctx context.Context, name, value string) error
	// Token makes a join token that is good for ttl, for a broker of that name, or of any
	// if it is empty.
	Token(ctx context.Context, ttl time.Duration, node string) (string, error)
}

// Member is a broker as the one that was asked sees it.
type Member struct {
	Name string
	// State is alive, suspected or down.
	State string
	Since time.Time
	Zone  string
	// Labels are those of partitions that it takes.
	Labels []string
	// Version is that of its software, empty if it has not said.
	Version            string
	Draining, Stopping bool
	// Starting says that it has begun, and serves nothing before it knows what the
	// others do.
	Starting bool
	// Cluster and Links are its addresses for brokers and for gateways.
	Cluster, Links string
	// Owned and Followed count the partitions that the table gives it.
	Owned, Followed int
}

// Running is VerneMQ's word for a member that is not down.
func (m *Member) Running() bool { return m.State != "down" }

// The states of a Partition.
const (
	// InSync: it is served with as many replicas in sync as it should have.
	InSync = "in_sync"
	// Degraded: it is served with fewer.
	Degraded = "degraded"
	// Claimed: its owner is about to serve it.
	Claimed = "claimed"
	// Unserved: its owner does not serve it, or cannot be asked.
	Unserved = "unserved"
	// Alarmed: its owner stands still until an operator decides.
	Alarmed = "alarmed"
	// Unowned: the table has no entry.
	Unowned = "unowned"
)

// States are the states of a Partition, the best first.
func States() []string { return []string{InSync, Degraded, Claimed, Unserved, Alarmed, Unowned} }

// Partition is what the table has of a partition, and what becomes of it.
type Partition struct {
	ID    int
	Epoch uint64
	// Owner is empty without an entry. InSync has the owner, Others are being caught up.
	Owner          string
	InSync, Others []string
	// Wanted are the brokers that should hold it, the owner first; none if that is not
	// known now. Replicas is how many it should have.
	Wanted   []string
	Replicas int
	// Label is that which a broker must accept to hold it.
	Label string
	State string
	// Draining says that the owner is about to hand it over.
	Draining bool
}

// Placement is where a tenant lives.
type Placement struct {
	Tenant     string
	Partitions []int
	// Revision grows when an operator says another place; Placed says that one has.
	Revision uint64
	Placed   bool
	// Stage is leaving, of a tenant on its way to the partitions To, then arriving, in its
	// Partitions, and else empty.
	Stage string
	To    []int
	// Purged says that the tenant was purged: it has nothing, or was made again since and lives
	// where its plan has it.
	Purged bool
}

// Place is where a tenant is to live: in Partitions, in all with a Label, in as many as a plan
// of Grow has, or, without any of these, where its plan has it.
type Place struct {
	Partitions []int
	Label      string
	Grow       int
}

// Progress is how far a tenant is on its way to other partitions.
type Progress struct {
	// Stage is that of the Placement.
	Stage string
	// Sessions and Retained count what has not been handed over, and Waits says what it waits
	// for.
	Sessions, Retained int
	Waits              string
}

// Setting is a value that holds for all brokers.
type Setting struct {
	Name string
	// Value is that in force; Set says that an operator has said it, Least and Most what
	// it may be, Doc what it does.
	Value, Least, Most int
	Set                bool
	Doc                string
}

// Moves says what is left to do until the partition is where it should be: nothing, the
// name of the new owner, and how many brokers it is to be copied to.
func (p *Partition) Moves() (owner string, copies int) {
	for _, b := range p.Wanted {
		if !slices.Contains(p.InSync, b) {
			copies++
		}
	}
	if len(p.Wanted) > 0 && p.Wanted[0] != p.Owner {
		owner = p.Wanted[0]
	}
	return owner, copies
}

// Copy is what a broker has of a partition.
type Copy struct {
	Node string `json:"node"`
	// Answers says that the broker was asked and the rest is known.
	Answers bool `json:"answers"`
	// Kind is empty, fetching, suspect or whole; only a whole one is served.
	Kind string `json:"kind"`
	// Epoch and N are those of its newest record; 0 without one.
	Epoch uint64 `json:"epoch"`
	N     uint64 `json:"n"`
	// Role is what the broker does with it: following, claiming, serving, handing or
	// alarmed.
	Role string `json:"role"`
}

// Node are the figures of a broker, under VerneMQ's names; counters begin with its
// start. What VerneMQ does not have comes after Listeners.
type Node struct {
	NumOnline        int64  `json:"num_online"`
	NumOffline       int64  `json:"num_offline"`
	MsgIn            uint64 `json:"msg_in"`
	MsgOut           uint64 `json:"msg_out"`
	QueueIn          uint64 `json:"queue_in"`
	QueueOut         uint64 `json:"queue_out"`
	QueueDrop        uint64 `json:"queue_drop"`
	QueueUnhandled   uint64 `json:"queue_unhandled"`
	NumSubscriptions int64  `json:"num_subscriptions"`
	NumRetained      int64  `json:"num_retained"`
	// MatchesLocal are deliveries to sessions of this broker, MatchesRemote messages
	// sent to another broker: each once, whoever it is for there.
	MatchesLocal  uint64 `json:"matches_local"`
	MatchesRemote uint64 `json:"matches_remote"`
	Version       string `json:"version"`
	// MyStatus has an object with one name for each member: whether this broker reaches
	// it.
	MyStatus  []map[string]bool `json:"mystatus"`
	Listeners []Listener        `json:"listeners"`

	// NumQueued are the messages that wait in queues now.
	NumQueued int64     `json:"num_queued"`
	Zone      string    `json:"zone,omitempty"`
	StartedAt time.Time `json:"started_at"`
	// Speaks are the versions that this broker speaks with others, and StoreVersion that
	// of its store; 0 of one of before there were versions.
	Speaks       [2]uint8 `json:"speaks"`
	StoreVersion int      `json:"store_version"`
	// BusUp says that the control plane is reached.
	BusUp bool `json:"bus_up"`
	// BusAge is how old what this broker knows of the control plane is, in seconds: all
	// changes of the partition table up to then are known. It is -1 if it was never reached, and
	// 0 of a broker that is alone.
	BusAge   float64 `json:"bus_age_seconds"`
	Draining bool    `json:"draining"`
	Stopping bool    `json:"stopping"`
	// Starting is as in Member.
	Starting bool `json:"starting"`
	// Load is the level of overload: calm, slow, refuse or shed.
	Load string `json:"load"`
	// Gateways are those that have links to this broker.
	Gateways []Gateway `json:"gateways"`
	// Problems are what an operator must act on here, in words.
	Problems []string `json:"problems"`
	// Partitions counts them by what this broker has of them: serving, in_sync (of
	// those), followed, claiming, handing, alarmed, unowned; total is all of the region.
	Partitions map[string]int `json:"partitions"`
}

// Gateway is a gateway as a broker sees it.
type Gateway struct {
	Name string `json:"name"`
	// Links are how many it has to the broker, Since when the first of them began.
	Links int       `json:"links"`
	Since time.Time `json:"since"`
}

// Listener is a listener of a broker.
type Listener struct {
	Type       string `json:"type"`
	Status     string `json:"status"`
	IP         string `json:"ip"`
	Port       string `json:"port"`
	Mountpoint string `json:"mountpoint"`
	MaxConns   int    `json:"max_conns"`
}

// SessionQuery asks for sessions.
type SessionQuery struct {
	// Filters are fields and what they must be; a value that begins with ~ is a regular
	// expression.
	Filters map[string]string `json:"filters,omitempty"`
	// Topics asks for a row for each subscription.
	Topics bool `json:"topics,omitempty"`
	// Limit is how many rows each broker gives, 1 to 1,000.
	Limit int `json:"limit"`
}

// Session is a row of session show, by VerneMQ's field names.
type Session map[string]any
