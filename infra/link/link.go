// SPDX-License-Identifier: Apache-2.0

package link

import (
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
)

// Channel names one client connection on one link. The gateway chooses it and
// does not use it again while the link lives, before its Close was answered.
type Channel uint32

// Broker is the broker's end of a link, as a gateway holds it.
//
// All methods may be called concurrently, but the frames of one channel must
// come from one goroutine at a time.
type Broker interface {
	// Send hands b over. The broker may run the work at once and call
	// Gateway.Receive and Gateway.Flush before Send returns, so a caller
	// holds no lock that those take. What b holds is not read after Send
	// returned, and b may be used again. What has to cross a network may wait
	// for Flush.
	Send(b *Up) error
	// Post is Send without running any of the work on the calling goroutine. It
	// is for credits granted from inside Gateway.Flush.
	Post(b *Up) error
	// Flush sends what waits. It does not wait for the network.
	Flush()
	// Close ends the link: every channel of it is closed as if its
	// connection were lost.
	Close() error
}

// Gateway is the gateway's end of a link, as a broker holds it.
type Gateway interface {
	// Receive takes a batch. It appends to connections and returns: it must
	// neither block nor call the broker, and write to a socket only what has
	// become too much to keep. It is called concurrently, but never for one
	// channel at the same time. What b holds is not valid after Receive
	// returned.
	Receive(b *Down)
	// Flush writes out what Receive appended. It must not block. It is called
	// after at least every turn that called Receive, concurrently, and never
	// from inside a turn.
	Flush()
	// Lost says that the link is gone, with why. No Receive follows. In one
	// process it is never called.
	Lost(err error)
}

// EarlyFlusher is a Gateway that can do a part of Flush for a broker that has more
// to do.
type EarlyFlusher interface {
	Gateway
	// FlushEarly writes out what is for tenants that rarely have something. It is
	// called as Flush is, by who calls that within a few milliseconds.
	FlushEarly()
}

// UpKind is what a frame from gateway to broker says.
type UpKind uint8

// The frames from gateway to broker.
const (
	UpOpen UpKind = iota + 1
	UpPublish
	UpAck
	UpSubscribe
	UpUnsubscribe
	UpCredit
	UpTooLarge
	UpClose
	UpQuery
	// UpLimits replaces the Limits of an Open, because the tenant has changed.
	UpLimits
	// UpPaused answers a DownPause: nothing more comes on the channel but its UpClose.
	UpPaused
)

// Up is a batch from gateway to broker.
type Up struct {
	Frames []UpFrame
}

// Reset empties b and keeps its memory.
func (b *Up) Reset() {
	clear(b.Frames)
	b.Frames = b.Frames[:0]
}

// UpFrame is one frame of an Up batch. Which fields are read depends on Kind.
type UpFrame struct {
	Kind    UpKind
	Ack     mqtt.AckKind    // UpAck
	Reason  mqtt.ReasonCode // UpAck
	Dup     bool            // UpPublish
	Channel Channel
	// PacketID is of UpPublish (0 at QoS 0), UpAck, UpSubscribe, UpUnsubscribe
	// and UpTooLarge.
	PacketID uint16
	// Bytes is of UpCredit: the total of Deliver bytes (DeliverCost each) that
	// the broker may send on this channel since it was opened.
	Bytes   uint64
	Message mqtt.Message // UpPublish

	Open        *Open               // UpOpen
	Close       *Close              // UpClose
	Subscribe   []mqtt.Subscription // UpSubscribe
	Unsubscribe []string            // UpUnsubscribe
	Query       *Query              // UpQuery
	Limits      *NewLimits          // UpLimits
}

// NewLimits are what holds for a channel from now on.
type NewLimits struct {
	// SessionExpiry is that of the session after the tenant's new cap, in seconds.
	SessionExpiry uint32
	Limits        Limits
}

// Open asks for a channel: the CONNECT after the gateway has authenticated it.
type Open struct {
	Tenant     string
	ClientID   mqtt.ClientID
	CleanStart bool
	// Guest asks for a session in any partition that the broker serves, beside the
	// client's own: it is clean and ends with the channel. At most one of a client id
	// is at a broker.
	Guest bool
	// SessionExpiry is in seconds, after the tenant's cap; 3.x clients with
	// clean session 0 have the tenant's persistent client expiration here.
	SessionExpiry uint32
	Will          *mqtt.Will
	// ReceiveMaximum is the client's, 1 to 65,535 [MQTT-3.1.2.11.3].
	ReceiveMaximum uint16
	// Credit is the first UpCredit of the channel.
	Credit uint64
	Limits Limits
	// Partitions is how many partitions the tenant's cell has if it is drawn, 0 for all:
	// that which its plan had when the tenant was made. Placement is the revision of the
	// TableCell that the gateway has chosen by, 0 for none. They go to brokers with
	// FeatureCells only.
	Partitions uint16
	Placement  uint64
	// GrantRevision is the revision of the grant that the gateway enforces.
	GrantRevision uint64
	// Labels are for show only; nothing is decided by them.
	Labels Labels
	// Resume, if it is not 0, is the token of the DownPause of the channel that this one
	// is to go on from, at another broker: the session knows all but Tenant, ClientID
	// and Credit, and the client is told nothing. If the session does not wait for that
	// token, the Open is refused.
	Resume uint64
}

// Limits are the tenant's limits and settings that the broker enforces on the
// session. A negative value means that there is no limit.
type Limits struct {
	QueueMessages int64 // messages waiting for one session
	QueueBytes    int64 // bytes waiting for one session
	Subscriptions int64 // filters of one session
	// ReceiveMaximum bounds unacknowledged QoS 1 and 2 publishes of this
	// client, 1 to 65,535; it is what CONNACK told the client.
	ReceiveMaximum uint16
	Retained       int64 // retained messages of the tenant
	RetainedBytes  int64 // bytes of the tenant's retained messages
	Sessions       int64 // sessions with an expiry of the tenant
	// Tenant are further limits of the whole tenant, to brokers with FeatureQuotas only.
	Tenant   TenantLimits
	Settings Settings
}

// TenantLimits are what all sessions of a tenant may have together; a negative value
// means that there is no limit. The zero TenantLimits say nothing.
type TenantLimits struct {
	// Told says that the others say something.
	Told               bool
	Subscriptions      int64 // subscriptions
	SharedGroups       int64 // shared subscriptions, each a name and a filter
	SharedGroupMembers int64 // members of each
	FanOut             int64 // receivers of one message
	StorageBytes       int64 // bytes of what waits and of what is retained
	RetainedRate       int64 // retained messages set per second
	RetainedSubscribe  int64 // retained messages that one session is sent at once, and then each second
}

// NoTenantLimits are limits that bound nothing.
var NoTenantLimits = TenantLimits{
	Subscriptions: -1, SharedGroups: -1, SharedGroupMembers: -1, FanOut: -1, StorageBytes: -1, RetainedRate: -1, RetainedSubscribe: -1,
}

// Settings are how a session behaves. The zero Settings are the defaults of
// package tenancy.
type Settings struct {
	// OnlineMessages bounds the messages waiting while there is a connection, 0
	// for no other bound than QueueMessages; KeepOffline says that what waits
	// when a connection comes stays, even if that is more.
	OnlineMessages int64
	KeepOffline    bool
	// Inflight bounds the client's Receive Maximum; 0 does not.
	Inflight uint16
	// Retry is after how many seconds unacknowledged deliveries are sent again
	// on a live connection; 0 is never, as MQTT 5 wants it [MQTT-4.4.0-1].
	Retry uint16
	// Member is after how many seconds a message of a shared subscription that the
	// session has not acknowledged goes to another member; 0 is never.
	Member uint16
	// LIFO sends the newest of the waiting messages first, and drops the oldest
	// of a full queue.
	LIFO bool
	// UpgradeQoS delivers at the subscription's QoS.
	UpgradeQoS bool
	// QuietTakeover keeps a session that is taken over from sending its will.
	QuietTakeover bool
	// Multiple lets several connections share the session; Balance says that one
	// of them gets each message, and not each of them.
	Multiple, Balance bool
	// HandOff acknowledges a publish that a partition cannot be given now when it is
	// kept at the publisher's. Subscribe and Unsubscribe let a guest do that.
	HandOff, Subscribe, Unsubscribe bool
	// Share chooses for this client's publishes.
	Share SharePolicy
}

// SharePolicy is how the member of a shared subscription is chosen.
type SharePolicy uint8

// The policies. Local is: at the publisher's broker. Except for the sticky ones,
// members with a connection come first.
const (
	// ShareRoundRobin takes them in turn.
	ShareRoundRobin SharePolicy = iota
	ShareRandom
	// SharePreferLocal takes a local one, even without connection, if there is
	// any; ShareLocalOnly takes no other.
	SharePreferLocal
	ShareLocalOnly
	// ShareOnlineBeforeLocal takes a local one with a connection, else a remote
	// one, else a local one without.
	ShareOnlineBeforeLocal
	// ShareStickyPublisher and ShareStickyTopic take the same one for each
	// publisher and topic, while it is there.
	ShareStickyPublisher
	ShareStickyTopic
)

var sharePolicies = [...]string{
	"round_robin", "random", "prefer_local", "local_only", "prefer_online_before_local", "sticky_publisher", "sticky_topic",
}

// ParseSharePolicy returns the policy of that name, round robin if there is none.
func ParseSharePolicy(name string) SharePolicy {
	for p, s := range sharePolicies {
		if s == name {
			return SharePolicy(p)
		}
	}
	return ShareRoundRobin
}

func (p SharePolicy) String() string {
	if int(p) < len(sharePolicies) {
		return sharePolicies[p]
	}
	return "unknown"
}

// ListenerAPI is the Listener of the API's own channels, by which they are told
// from those of devices. No listener of a gateway has that name.
const ListenerAPI = "api"

// Labels describe a connection to people.
type Labels struct {
	Protocol string `json:"protocol"` // "3.1", "3.1.1" or "5"
	Listener string `json:"listener"` // the listener's name, or ListenerAPI
	Username string `json:"username,omitempty"`
	Peer     string `json:"peer"` // the true address, after PROXY and X-Forwarded-For
	Gateway  string `json:"gateway"`
}

// CloseCause is why a channel ends.
type CloseCause uint8

// The causes of an UpClose.
const (
	// CloseNormal is a DISCONNECT with 0x00: the will is deleted
	// [MQTT-3.1.2-10].
	CloseNormal CloseCause = iota + 1
	// CloseWithWill is a DISCONNECT with any other reason code.
	CloseWithWill
	// CloseLost is a network connection that ended without DISCONNECT, or that
	// the gateway ended (keep alive, protocol error).
	CloseLost
	// CloseRevoked is a connection that an administrator ended.
	CloseRevoked
)

// Close ends a channel. The broker sends nothing more on it, but a DownClose with
// Success if it is to be Answered.
type Close struct {
	Cause CloseCause
	// SessionExpiry replaces the one of Open if HasSessionExpiry
	// [MQTT-3.14.2.2.2].
	SessionExpiry    uint32
	HasSessionExpiry bool
}

// Answered reports whether the broker answers when the session has heard of it:
// the client has said goodbye, and waits to be cut off.
func (c *Close) Answered() bool { return c.Cause == CloseNormal || c.Cause == CloseWithWill }

// QueryKind is what the API asks about.
type QueryKind uint8

// The questions of the API.
const (
	// QueryClients lists the tenant's sessions in order of ClientID, after
	// Cursor, at most Limit.
	QueryClients QueryKind = iota + 1
	// QueryClient is one session by ClientID.
	QueryClient
	// QueryKick disconnects a client with 0x98; Purge forgets its session too.
	QueryKick
	// QueryRetained lists retained messages that match Filter, by topic, after
	// Cursor, at most Limit.
	QueryRetained
	// QueryUsage counts what the tenant holds at this broker.
	QueryUsage
	// QueryKept is answered when what the broker had matched before, of all tenants, and
	// is to be retained, is; or after 250 ms. Next has the partitions that it answers for,
	// two bytes each, big endian. Brokers ask it.
	QueryKept
	// QueryCell asks where the tenant lives, and has its cell grow by what its plan draws
	// until it has Limit partitions, or by as many of them as its clients can wait for; with a
	// Limit of 0 it only looks. Next has a CellState as JSON. It is for brokers with
	// FeatureGrowth, and is answered when the tenant is there, up to 20 s later.
	QueryCell
	// QueryForget has a tenant that is purged be forgotten, with its sessions, what waits for
	// them and its retained messages, in portions: Found says that there was something, or is
	// still, and Usage how many sessions, queued and retained messages were forgotten, which
	// is committed then. Who asks goes on until nothing is found. It is for brokers with
	// FeatureForget, and is answered up to 20 s later.
	QueryForget
	// QueryQueue asks what waits for one session, by ClientID: its first Limit messages, with
	// their payloads if Purge. Next has a QueueState as JSON. It is for brokers with
	// FeatureLooks.
	QueryQueue
	// QueryMatch lists the sessions that have subscriptions which match the topic name in
	// Filter, with those subscriptions only, in order of ClientID, after Cursor, at most Limit.
	// Who has subscribed since the page before, up to a minute ago, may be left out.
	// It is for brokers with FeatureLooks.
	QueryMatch
)

// QueueState is what waits for a session.
type QueueState struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
	Inflight int   `json:"inflight"`
	// First are those that are sent next, in that order; those that have expired are left out.
	First []QueuedMessage `json:"first,omitempty"`
}

// QueuedMessage is a message that waits.
type QueuedMessage struct {
	Topic string `json:"topic"`
	QoS   uint8  `json:"qos"`
	// Retain is what it is sent with.
	Retain bool `json:"retain,omitempty"`
	// Size is that of the payload, in bytes.
	Size int `json:"size"`
	// Group is $share/NAME/FILTER of the shared subscription by which it came, if it was one.
	Group string `json:"group,omitempty"`
	// ExpireAt is in Unix milliseconds; 0 is never.
	ExpireAt int64 `json:"expire_at,omitempty"`
	// Payload and Properties (as in mqtt.Message) are there if they were asked for.
	Payload    []byte `json:"payload,omitempty"`
	Properties []byte `json:"properties,omitempty"`
}

// CellState is where a tenant lives, by the records of the broker that says it.
type CellState struct {
	// Has is in how many partitions it lives; 0 is as many as the tenant's own record
	// says, and that is what the brokers draw when one of its clients comes.
	Has int `json:"has"`
	// Drawn says that its partitions are those that a plan of so many gives it. Others are
	// an operator's, and QueryCell leaves them.
	Drawn bool `json:"drawn"`
	// Moves says that the tenant is on its way to other partitions.
	Moves bool `json:"moves,omitempty"`
	// Shared is from how many partitions of the region plans draw.
	Shared int `json:"shared"`
}

// UsageAndSet is the Limit of a QueryUsage that asks for RetainedSet, too. Brokers that do
// not know it take no notice.
const UsageAndSet = 1

// Query is a question of the API to a broker. It needs no channel.
type Query struct {
	ID       uint64 // chosen by the asker, repeated in the Answer
	Kind     QueryKind
	Tenant   string
	ClientID mqtt.ClientID
	Filter   string
	Cursor   string
	Limit    int
	// Purge is of QueryKick; a QueryQueue has the payloads with it.
	Purge bool
}

// Answer is the broker's answer to a Query. Exactly the field of the question's
// kind is set; Found is false if there was no such client.
type Answer struct {
	ID       uint64
	Found    bool
	Error    string
	Clients  []ClientInfo
	Retained []RetainedInfo
	Usage    Usage
	// Next is the Cursor for the following page, empty at the end.
	Next string
}

// ClientInfo describes a session to people. Times are Unix milliseconds; zero
// means never.
type ClientInfo struct {
	ClientID       string              `json:"client_id"`
	Connected      bool                `json:"connected"`
	Labels         Labels              `json:"labels"`
	ConnectedAt    int64               `json:"connected_at"`
	DisconnectedAt int64               `json:"disconnected_at"`
	SessionExpiry  uint32              `json:"session_expiry"`
	QueueMessages  int64               `json:"queue_messages"`
	QueueBytes     int64               `json:"queue_bytes"`
	Inflight       int                 `json:"inflight"`
	Dropped        uint64              `json:"dropped"`
	Subscriptions  []mqtt.Subscription `json:"subscriptions,omitempty"`
}

// RetainedInfo is one retained message. StoredAt is in Unix milliseconds.
type RetainedInfo struct {
	Message  mqtt.Message `json:"-"`
	StoredAt int64        `json:"stored_at"`
}

// Usage counts what a tenant holds at a broker.
type Usage struct {
	Connections        int64
	PersistentSessions int64
	Subscriptions      int64
	QueueMessages      int64
	QueueBytes         int64
	Retained           int64
	RetainedBytes      int64
	// RetainedSet is how many messages with RETAIN the broker has let through for the
	// quota retained_rate since it knows the tenant; 0 unless UsageAndSet asks for it.
	RetainedSet int64
}

// DownKind is what a frame from broker to gateway says.
type DownKind uint8

// The frames from broker to gateway.
const (
	DownOpened DownKind = iota + 1
	DownRefused
	DownDeliver
	DownAck
	DownSuback
	DownUnsuback
	DownClose
	DownWindow
	DownAnswer
	DownGoaway
	// DownLoad says how overloaded the broker is. It is of the link, and holds
	// until the next one; none is load.Calm.
	DownLoad
	// DownTable says who owns which partitions, as far as the broker knows. It is
	// of the link.
	DownTable
	// DownMoved answers an UpOpen: this broker does not serve the partition of the
	// client, and the channel is not open. On a channel that was paused it says that
	// the partition has gone: the channel ends without a word to the client, and is
	// opened at the new owner with the token of the pause.
	DownMoved
	// DownPause says that the partition of a client is about to move. The gateway sends
	// what it has begun to, then UpPaused, and takes nothing more of the client until
	// the channel was opened again. The broker goes on sending until DownMoved. It goes
	// to gateways with FeatureMoves only.
	DownPause
	// DownNote is for the history of the tenant's clients, and goes to gateways with
	// FeatureQuotas only; or, to those with FeatureRefusals, it names the quota by which
	// the next frame of the channel, an acknowledgement, refuses something.
	DownNote
)

// Note is something that the broker did to a client. It is immutable.
type Note struct {
	Tenant   string
	ClientID mqtt.ClientID
	// Loose says that the frame's channel means nothing: the client has none here.
	Loose bool
	// Dropped says that messages were not passed on, and Reason why, as metrics do; else
	// something was refused, or made to wait, and Reason is the quota's name.
	Dropped bool
	Reason  string
	// Text is a sentence on it.
	Text string
	// Level says that the tenant has come to it with the quota Reason, of which Count percent
	// are used; no client is named then. It goes to gateways with FeatureLevels only.
	Level level.Level
	// Count is how many there were since the last such Note; 0 is of one that names a
	// quota, and is not for the history.
	Count uint32
}

// Down is a batch from broker to gateway. A message that many channels of the
// batch receive stands once in Messages.
type Down struct {
	Messages []mqtt.Message
	Frames   []DownFrame
}

// Reset empties b and keeps its memory.
func (b *Down) Reset() {
	clear(b.Messages)
	clear(b.Frames)
	b.Messages, b.Frames = b.Messages[:0], b.Frames[:0]
}

// DownFrame is one frame of a Down batch. Which fields are read depends on
// Kind.
type DownFrame struct {
	Kind   DownKind
	Ack    mqtt.AckKind    // DownAck
	Reason mqtt.ReasonCode // DownAck, DownRefused, DownClose
	QoS    mqtt.QoS        // DownDeliver: the QoS of this delivery, not the message's
	Retain bool            // DownDeliver: the RETAIN flag to send
	Dup    bool            // DownDeliver
	// SessionPresent is of DownOpened.
	SessionPresent bool
	Load           load.Level // DownLoad
	Channel        Channel
	// PacketID is of DownDeliver (0 at QoS 0), DownAck, DownSuback and
	// DownUnsuback.
	PacketID uint16
	Slot     uint16 // DownDeliver: index into Messages
	// Bytes is of DownWindow and DownOpened: the total of UpFrame.Cost that the
	// gateway may send on this channel since it was opened. Of DownPause it is the
	// token to open the channel again with, never 0.
	Bytes           uint64
	SubscriptionIDs []uint32          // DownDeliver
	Reasons         []mqtt.ReasonCode // DownSuback, DownUnsuback
	Text            string            // DownRefused, DownClose: the reason string for the client
	Answer          *Answer           // DownAnswer
	Table           *TableUpdate      // DownTable
	Moved           *Moved            // DownMoved
	Note            *Note             // DownNote
}
