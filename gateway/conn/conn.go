// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// CreditWindow is how many Deliver bytes a broker may be ahead of what the
// client's socket took.
//
// Memory bound of a connection: a frame may be sent while the counter is below
// what is granted, so at most CreditWindow and one packet wait for a socket
// that takes nothing, or for a rate, whatever is published to it. (What waits for
// a rate takes about 150 bytes more for each message than the 16 that count.) Beyond that a connection
// holds at most one packet, of at most the tenant's packet_size, that has not
// come whole; maxHeld of answers that wait for the broker's; aliasBytes of the
// topics of its aliases, each way; checksKept verdicts under a dynamic policy; and
// what its shell owes to the socket.
const CreditWindow = 512 << 10

const (
	// smallestCredit is the least that a slow rate leaves of it.
	smallestCredit = 16 << 10
)

// windowOf is the credit window of a client who may get that many bytes in a second, a negative
// figure is no limit: no more at once than in a second. Where the tenant as a whole has a rate
// out it is the smallest, as what waits for that rate is kept for each of its clients, of
// which there may be thousands.
func windowOf(bytes int64, tenant bool) uint64 {
	switch {
	case tenant:
		return smallestCredit
	case bytes < 0:
		return CreditWindow
	default:
		return uint64(min(max(bytes, smallestCredit), CreditWindow))
	}
}

// window is the credit window under r.
func (r *Rules) window() uint64 {
	return windowOf(r.BytesOutRateClient, r.DeliveryRate >= 0 || r.BytesOutRate >= 0)
}

const (
	// aliasesOut bounds the outgoing aliases of a connection, however many the
	// client offers, because each keeps its topic.
	aliasesOut = 64
	// aliasesIn is announced when the tenant has no limit, for the same reason.
	aliasesIn = 128
	// aliasBytes bounds the topics of all aliases of a connection, each way. A
	// client that was announced more than aliasesIn has aliasShare for each.
	aliasBytes = 64 << 10
	aliasShare = aliasBytes / aliasesIn
	// maxHeld is how many bytes of answers of our own may wait for answers of
	// the broker before the client is not read.
	maxHeld = 64 << 10
	// controlMax bounds every packet but PUBLISH, in bytes, however large those
	// of the tenant may be: decoded, short filters take ten times their bytes.
	controlMax = 8 << 20
	// answerSize is about what an answer takes.
	answerSize = 64
	// subackSize is about what a SUBACK takes that refuses one filter and says why.
	subackSize = 160
)

// When Effects are full.
const (
	fullFrames = 1024
	fullBytes  = 64 << 10
)

type phase uint8

const (
	waiting    phase = iota // for CONNECT
	connecting              // CONNECT has come, CONNACK is owed
	open
	closed
)

// Conn is the machine of one connection. The zero Conn waits for CONNECT.
type Conn struct {
	// Immutable after Connect, or after Accept.

	version    packet.Version
	bridge     bool
	noProblem  bool
	keepAlive  uint16
	limit      uint32 // the client's Maximum Packet Size, 0 for none
	aliasMax   uint16 // what we announced
	receiveMax uint16
	asked      uint32          // the session expiry of CONNECT
	connack    *packet.Connack // until it is sent
	method     *string         // the Authentication Method of CONNECT
	told       unavailable     // in CONNACK

	// The inbound half.

	aliases    [][]byte // topics by alias-1
	aliasBytes int      // of those topics
	sent       uint64   // what was sent to the broker, in link.UpFrame.Cost
	forwarded  [2]uint32
	samples    uint32  // publishes that were allowed
	memo       *memo   // nil before the first publish under a policy
	checks     *checks // nil unless the grant asks

	// The outbound half.

	phase        phase
	out          map[string]uint16 // aliases by topic
	outBytes     int               // of those topics
	outMax       uint16
	delivered    uint64 // Deliver bytes that came
	creditWindow uint64 // CreditWindow, or less for a slow rate; see Change
	granted      uint64 // the last UpCredit
	early        uint64 // Deliver bytes of a former channel that are not given to Receive yet
	held         []answer
	subacks      map[uint16]partSuback
	// noted names the quota of the acknowledgement that comes next; nil if none refuses.
	noted *link.Note
	// guards: messages may come that the grant does not allow, from what was
	// subscribed, or was matched, before it held.
	guards bool

	// Both halves.

	rules    atomic.Pointer[Rules]
	grant    atomic.Pointer[tenancy.Grant]
	expiry   atomic.Uint32 // the session expiry in force
	window   atomic.Uint64
	inflight atomic.Int32
	holding  atomic.Int64 // bytes of held and subacks
	answered [2]atomic.Uint32
}

// answer is an acknowledgement that the gateway gives by itself. It waits until
// everything that was forwarded before it is answered, because PUBACKs and
// PUBRECs go out in the order of the PUBLISHes [MQTT-4.6.0-2, -3].
type answer struct {
	typ    packet.Type
	after  uint32
	id     uint16
	reason mqtt.ReasonCode
	text   string
	limit  string
}

// Close says how a connection ends. The zero Close does not end it.
type Close struct {
	// Cause is 0 when the broker has ended the channel itself.
	Cause            link.CloseCause
	Reason           mqtt.ReasonCode
	Text             string
	SessionExpiry    uint32
	HasSessionExpiry bool
	// Details is nil for most.
	Details *Details
	// ByClient is set when the client has said goodbye: it is not answered.
	ByClient bool
	Ended    bool
}

// Details are what programs are told about a Close.
type Details struct {
	// Reference is the Server Reference of MQTT 5.
	Reference string
	// Limit names the quota or setting that ends the connection.
	Limit string
}

// details returns those of a Close, empty if there are none.
func (cl *Close) details() Details {
	if cl.Details == nil {
		return Details{}
	}
	return *cl.Details
}

func ended(cause link.CloseCause, reason mqtt.ReasonCode, text string) Close {
	return Close{Cause: cause, Reason: reason, Text: text, Ended: true}
}

// Drop is why a message was not passed on.
type Drop uint8

// The reasons for a Drop.
const (
	NotDropped   Drop = iota
	DropDenied        // the grant does not allow it
	DropTopic         // the topic is beyond the tenant's limits
	DropSize          // larger than the client's Maximum Packet Size
	DropPayload       // the payload is not what its format says
	DropRate          // the tenant has sent too much for too long
	DropQoS           // above the tenant's maximum_qos
	DropRetain        // retained, without retain_available
	DropHeld          // waited for a rate, and its connection ended at QoS 0, or it expired
	DropOverload      // at QoS 0, of a tenant that is slowed down, to an overloaded node
)

func (d Drop) String() string {
	return [...]string{"none", "denied", "topic_limit", "packet_too_large", "payload_format", "tenant_rate", "maximum_qos", "retain_available", "held", "overload"}[d]
}

// Effects is what the packets of one read lead to. Up is sent after Apply.
// The byte slices are views into the read buffer.
type Effects struct {
	Up link.Up
	// Channel is put into every frame.
	Channel link.Channel
	// Drops counts PUBLISH packets that were not passed on.
	Drops [DropOverload + 1]int
	// Refused counts subscriptions that were not passed on; FirstRefused is the
	// first of them.
	Refused      [RefusedCheck + 1]int
	FirstRefused RefusedSubscription
	// Decided are some of the answers of a grant of the tenant's own policy.
	Decided []Decided
	// Asking is what is to be known of mqtt.check before the last packet is handled, and
	// the packets behind it are.
	Asking Asking
	// Now is the time of the turn in Unix milliseconds; it need be set only where the
	// grant asks.
	Now int64
	// Auth is an AUTH of a client that authenticates again.
	Auth  Auth
	Close Close

	out     []byte
	answers []answer
	subacks []partSuback
}

// partSuback is a SUBACK of which the broker decides some reasons: those that
// are brokerDecides.
type partSuback struct {
	id      uint16
	reasons []mqtt.ReasonCode
	text    string
	limit   string
}

// size is about what s takes.
func (s *partSuback) size() int64 { return int64(answerSize + len(s.reasons) + len(s.text)) }

const brokerDecides = 0xFF

// Reset empties fx and keeps its memory.
func (fx *Effects) Reset() {
	fx.Up.Reset()
	clear(fx.answers)
	clear(fx.subacks)
	fx.out, fx.answers, fx.subacks = fx.out[:0], fx.answers[:0], fx.subacks[:0]
	fx.Drops = [DropOverload + 1]int{}
	clear(fx.Decided)
	fx.Decided = fx.Decided[:0]
	fx.Refused, fx.FirstRefused, fx.Auth = [RefusedCheck + 1]int{}, RefusedSubscription{}, Auth{}
	fx.Close, fx.Channel = Close{}, 0
	fx.Asking = Asking{}
}

func (fx *Effects) frame(kind link.UpKind) *link.UpFrame {
	fx.Up.Frames = append(fx.Up.Frames, link.UpFrame{Kind: kind, Channel: fx.Channel})
	return &fx.Up.Frames[len(fx.Up.Frames)-1]
}

// Full reports whether fx is to be brought about before more packets are
// handled, so that what a large read leads to does not gather.
func (fx *Effects) Full() bool {
	return len(fx.Up.Frames) >= fullFrames || len(fx.out)+answerSize*len(fx.answers)+subackSize*len(fx.subacks) >= fullBytes
}

func (fx *Effects) close(reason mqtt.ReasonCode, text string) {
	if !fx.Close.Ended {
		fx.Close = ended(link.CloseLost, reason, text)
	}
}

// closeBy is close by the quota or setting of that name.
func (fx *Effects) closeBy(reason mqtt.ReasonCode, text, limit string) {
	if !fx.Close.Ended {
		fx.close(reason, text)
		fx.Close.Details = &Details{Limit: limit}
	}
}

// Version is that of the CONNECT; 0 before it.
func (c *Conn) Version() packet.Version { return c.version }

// PacketMax is the largest packet of that type that the client may send, in
// bytes; 0 is no limit.
func (c *Conn) PacketMax(t packet.Type) int {
	most := 0
	if r := c.rules.Load(); r != nil {
		most = r.packetMax
	}
	if t != packet.PUBLISH && (most == 0 || most > controlMax) {
		return controlMax
	}
	return most
}

// KeepAlive is how long the connection may be silent: one and a half times the
// keep alive in force [MQTT-3.1.2-22]. 0 is for ever.
func (c *Conn) KeepAlive() time.Duration {
	return time.Duration(c.keepAlive) * time.Second * 3 / 2
}

// Grant is what the client may do; nil before Accept.
func (c *Conn) Grant() *tenancy.Grant { return c.grant.Load() }

// MayRead reports whether the next packet, of that type, may be handled. What
// leads to frames for the broker must wait while the broker's window is used
// up; what may lead to answers of our own, while too many of those wait for the
// broker's; and a PUBLISH in 3.x, where nobody told the client a Receive
// Maximum, while that many are unanswered. It belongs to the inbound half.
func (c *Conn) MayRead(t packet.Type) bool {
	switch t {
	case packet.PUBLISH, packet.SUBSCRIBE:
		if c.holding.Load() > maxHeld {
			return false
		}
	case packet.UNSUBSCRIBE, packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
	default:
		return true
	}
	if c.sent >= c.window.Load() {
		return false
	}
	if t != packet.PUBLISH || c.version == packet.V5 {
		return true
	}
	unanswered := c.forwarded[0] - c.answered[0].Load() + c.forwarded[1] - c.answered[1].Load()
	return unanswered < uint32(c.receiveMax)
}
