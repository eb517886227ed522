// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// softBatch is the size at which an encoder begins another batch, in bytes: a
// receiver works in pieces of about this size. A single frame may be larger.
const softBatch = 256 << 10

// maxFrames is how many frames a batch may have, less one for the vector that
// follows a run's messages.
const maxFrames = 1<<16 - 2

// AppendUp appends frames of b, from the first-th on, to dst, until it has
// appended all or about softBatch bytes. It returns how many frames of the wire
// it wrote, and the index of the first frame of b that is not in them.
//
// Entries of a vector are consecutive frames of b, so that their order, also
// against other frames of their channels, is kept.
func AppendUp(dst []byte, b *Up, first int) (out []byte, count, next int) {
	start := len(dst)
	for next = first; next < len(b.Frames) && count < maxFrames && len(dst)-start < softBatch; count++ {
		f := &b.Frames[next]
		switch f.Kind {
		case UpAck:
			var body int
			dst, body = open(dst, wireAcks, 0, 0)
			for ; next < len(b.Frames) && b.Frames[next].Kind == UpAck && len(dst)-start < softBatch; next++ {
				f := &b.Frames[next]
				dst = appendAck(dst, f.Channel, f.Ack, f.Reason, f.PacketID)
			}
			dst = wire.ShutFrame(dst, body)
		case UpCredit:
			var body int
			dst, body = open(dst, wireCredit, 0, 0)
			for ; next < len(b.Frames) && b.Frames[next].Kind == UpCredit && len(dst)-start < softBatch; next++ {
				dst = appendWindow(dst, b.Frames[next].Channel, b.Frames[next].Bytes)
			}
			dst = wire.ShutFrame(dst, body)
		default:
			dst = appendUpFrame(dst, f)
			next++
		}
	}
	return dst, count, next
}

// appendUpFrame appends one frame that is no vector.
func appendUpFrame(dst []byte, f *UpFrame) []byte {
	var body int
	switch f.Kind {
	case UpOpen:
		return appendOpen(dst, f.Channel, f.Open)
	case UpPublish:
		flags := MessageFlags(&f.Message)
		if f.Dup {
			flags |= flagDup
		}
		dst, body = open(dst, wirePublish, flags, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
		dst = AppendMessage(dst, &f.Message)
	case UpSubscribe:
		dst, body = open(dst, wireSubscribe, 0, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
		for i := range f.Subscribe {
			dst = appendSubscription(dst, &f.Subscribe[i])
		}
	case UpUnsubscribe:
		dst, body = open(dst, wireUnsubscribe, 0, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
		for _, filter := range f.Unsubscribe {
			dst = wire.AppendBytes(dst, filter)
		}
	case UpTooLarge:
		dst, body = open(dst, wireTooLarge, 0, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
	case UpClose:
		var flags byte
		if f.Close.HasSessionExpiry {
			flags = flagExpiry
		}
		dst, body = open(dst, wireClose, flags, f.Channel)
		dst = append(dst, byte(f.Close.Cause))
		if f.Close.HasSessionExpiry {
			dst = binary.BigEndian.AppendUint32(dst, f.Close.SessionExpiry)
		}
	case UpLimits:
		dst, body = open(dst, wireLimits, 0, f.Channel)
		dst = binary.BigEndian.AppendUint32(dst, f.Limits.SessionExpiry)
		dst = appendLimits(dst, &f.Limits.Limits)
	case UpPaused:
		dst, body = open(dst, wirePaused, 0, f.Channel)
	case UpQuery:
		return appendQuery(dst, f.Query)
	case UpAck, UpCredit: // vectors: AppendUp's
		return dst
	}
	return wire.ShutFrame(dst, body)
}

// appendOpen appends
//
//	session expiry u32 | receive maximum u16 | credit u64 | grant revision u64 |
//	limits | tenant | ClientID | labels | [token u64] | [partitions u16 | placement u64] | [will delay u32 | will flags u8 | will]
func appendOpen(dst []byte, ch Channel, o *Open) []byte {
	var flags byte
	if o.CleanStart {
		flags |= flagYes
	}
	if o.Guest {
		flags |= flagGuest
	}
	if o.Will != nil {
		flags |= flagWill
	}
	if o.Resume != 0 {
		flags |= flagExpiry
	}
	cell := o.Partitions != 0 || o.Placement != 0
	if cell {
		flags |= flagCell
	}
	dst, body := open(dst, wireOpen, flags, ch)
	dst = binary.BigEndian.AppendUint32(dst, o.SessionExpiry)
	dst = binary.BigEndian.AppendUint16(dst, o.ReceiveMaximum)
	dst = binary.BigEndian.AppendUint64(dst, o.Credit)
	dst = binary.BigEndian.AppendUint64(dst, o.GrantRevision)
	dst = appendLimits(dst, &o.Limits)
	dst = wire.AppendBytes(dst, o.Tenant)
	dst = wire.AppendBytes(dst, string(o.ClientID))
	dst = appendLabels(dst, &o.Labels)
	if o.Resume != 0 {
		dst = binary.BigEndian.AppendUint64(dst, o.Resume)
	}
	if cell {
		dst = binary.BigEndian.AppendUint16(dst, o.Partitions)
		dst = binary.BigEndian.AppendUint64(dst, o.Placement)
	}
	if o.Will != nil {
		dst = binary.BigEndian.AppendUint32(dst, o.Will.Delay)
		dst = append(dst, MessageFlags(&o.Will.Message))
		dst = AppendMessage(dst, &o.Will.Message)
	}
	return wire.ShutFrame(dst, body)
}

// The flags of Settings.
const (
	settingKeepOffline = 1 << iota
	settingLIFO
	settingUpgradeQoS
	settingQuietTakeover
	settingMultiple
	settingBalance
	settingHandOff
	settingSubscribe
	settingUnsubscribe
	settingTenant // the tenant's limits follow
)

// appendLimits appends
//
//	six limits i64 | receive maximum u16 | online messages i64 | inflight u16 | retry u16 | member u16 | share policy u8 | settings u16 | [seven limits i64]
func appendLimits(dst []byte, l *Limits) []byte {
	s := &l.Settings
	for _, limit := range [...]int64{l.QueueMessages, l.QueueBytes, l.Subscriptions, l.Retained, l.RetainedBytes, l.Sessions} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(limit))
	}
	dst = binary.BigEndian.AppendUint16(dst, l.ReceiveMaximum)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.OnlineMessages))
	dst = binary.BigEndian.AppendUint16(dst, s.Inflight)
	dst = binary.BigEndian.AppendUint16(dst, s.Retry)
	dst = binary.BigEndian.AppendUint16(dst, s.Member)
	var flags uint16
	for i, on := range [...]bool{s.KeepOffline, s.LIFO, s.UpgradeQoS, s.QuietTakeover, s.Multiple, s.Balance, s.HandOff, s.Subscribe, s.Unsubscribe, l.Tenant.Told} {
		if on {
			flags |= 1 << i
		}
	}
	dst = binary.BigEndian.AppendUint16(append(dst, byte(s.Share)), flags)
	if t := &l.Tenant; t.Told {
		for _, limit := range [...]int64{t.Subscriptions, t.SharedGroups, t.SharedGroupMembers, t.FanOut, t.StorageBytes, t.RetainedRate, t.RetainedSubscribe} {
			dst = binary.BigEndian.AppendUint64(dst, uint64(limit))
		}
	}
	return dst
}

func (r *reader) limits() Limits {
	l := Limits{
		QueueMessages: r.I64(), QueueBytes: r.I64(), Subscriptions: r.I64(), Retained: r.I64(), RetainedBytes: r.I64(), Sessions: r.I64(),
		ReceiveMaximum: r.U16(), Settings: Settings{OnlineMessages: r.I64(), Inflight: r.U16(), Retry: r.U16(), Member: r.U16(), Share: SharePolicy(r.U8())},
	}
	flags, s := r.U16(), &l.Settings
	s.KeepOffline, s.LIFO, s.UpgradeQoS = flags&settingKeepOffline != 0, flags&settingLIFO != 0, flags&settingUpgradeQoS != 0
	s.QuietTakeover, s.Multiple, s.Balance = flags&settingQuietTakeover != 0, flags&settingMultiple != 0, flags&settingBalance != 0
	s.HandOff, s.Subscribe, s.Unsubscribe = flags&settingHandOff != 0, flags&settingSubscribe != 0, flags&settingUnsubscribe != 0
	r.Bad = r.Bad || flags >= settingTenant<<1 || s.Share > ShareStickyTopic
	if flags&settingTenant != 0 {
		l.Tenant = TenantLimits{
			Told: true, Subscriptions: r.I64(), SharedGroups: r.I64(), SharedGroupMembers: r.I64(), FanOut: r.I64(), StorageBytes: r.I64(),
			RetainedRate: r.I64(), RetainedSubscribe: r.I64(),
		}
	}
	return l
}

func (r *reader) open(flags byte) *Open {
	o := &Open{
		CleanStart: flags&flagYes != 0, Guest: flags&flagGuest != 0, SessionExpiry: r.U32(), ReceiveMaximum: r.U16(), Credit: r.U64(), GrantRevision: r.U64(),
		Limits: r.limits(),
		Tenant: r.String(), ClientID: mqtt.ClientID(r.String()), Labels: r.labels(),
	}
	if flags&flagExpiry != 0 {
		o.Resume = r.U64()
		r.Bad = r.Bad || o.Resume == 0
	}
	if flags&flagCell != 0 {
		o.Partitions, o.Placement = r.U16(), r.U64()
		r.Bad = r.Bad || o.Partitions == 0 && o.Placement == 0
	}
	if flags&flagWill != 0 {
		delay, flags := r.U32(), r.U8()
		// The will outlives its batch by far: it gets memory of its own.
		m := ReadMessage(&r.Reader, flags)
		r.Bad = r.Bad || flags&^(flagQoS|flagRetain|flagExpiry) != 0
		o.Will = &mqtt.Will{Message: m.Clone(), Delay: delay}
	}
	return o
}

func appendLabels(dst []byte, l *Labels) []byte {
	for _, label := range [...]string{l.Protocol, l.Listener, l.Username, l.Peer, l.Gateway} {
		dst = wire.AppendBytes(dst, label)
	}
	return dst
}

func (r *reader) labels() Labels {
	return Labels{Protocol: r.String(), Listener: r.String(), Username: r.String(), Peer: r.String(), Gateway: r.String()}
}

func appendQuery(dst []byte, q *Query) []byte {
	var flags byte
	if q.Purge {
		flags = flagYes
	}
	dst, body := open(dst, wireQuery, flags, 0)
	dst = binary.BigEndian.AppendUint64(dst, q.ID)
	dst = append(dst, byte(q.Kind))
	dst = binary.BigEndian.AppendUint32(dst, uint32(q.Limit))
	for _, s := range [...]string{q.Tenant, string(q.ClientID), q.Filter, q.Cursor} {
		dst = wire.AppendBytes(dst, s)
	}
	return wire.ShutFrame(dst, body)
}

// DecodeUp appends the count frames of data to b. Byte slices in b are views of
// data, except a will, which is a copy. On an error, which wraps ErrMalformed, b
// holds what was decoded before it.
func DecodeUp(data []byte, count int, b *Up) error {
	return wire.EachFrame(data, count, func(f wire.Frame) error { return b.decode(f) })
}

func (b *Up) decode(f wire.Frame) error {
	r := read(f.Body)
	out := UpFrame{Channel: Channel(f.ID)}
	switch f.Kind {
	case wireAcks:
		for len(r.Data) > 0 && !r.Bad {
			a := UpFrame{Kind: UpAck}
			a.Channel, a.Ack, a.Reason, a.PacketID = r.ack()
			if !r.Bad {
				b.Frames = append(b.Frames, a)
			}
		}
		return check(f, &r, 0, true)
	case wireCredit:
		for len(r.Data) > 0 && !r.Bad {
			c := UpFrame{Kind: UpCredit, Channel: Channel(r.U32()), Bytes: r.U64()}
			if !r.Bad {
				b.Frames = append(b.Frames, c)
			}
		}
		return check(f, &r, 0, true)
	case wireOpen:
		out.Kind, out.Open = UpOpen, r.open(f.Flags)
	case wirePublish:
		out.Kind, out.Dup, out.PacketID = UpPublish, f.Flags&flagDup != 0, r.U16()
		out.Message = ReadMessage(&r.Reader, f.Flags)
	case wireSubscribe:
		out.Kind, out.PacketID = UpSubscribe, r.U16()
		for len(r.Data) > 0 && !r.Bad {
			out.Subscribe = append(out.Subscribe, r.subscription())
		}
	case wireUnsubscribe:
		out.Kind, out.PacketID = UpUnsubscribe, r.U16()
		for len(r.Data) > 0 && !r.Bad {
			out.Unsubscribe = append(out.Unsubscribe, r.String())
		}
	case wireTooLarge:
		out.Kind, out.PacketID = UpTooLarge, r.U16()
	case wireClose:
		out.Kind, out.Close = UpClose, &Close{Cause: CloseCause(r.U8()), HasSessionExpiry: f.Flags&flagExpiry != 0}
		if out.Close.HasSessionExpiry {
			out.Close.SessionExpiry = r.U32()
		}
		r.Bad = r.Bad || out.Close.Cause < CloseNormal || out.Close.Cause > CloseRevoked
	case wireLimits:
		out.Kind, out.Limits = UpLimits, &NewLimits{SessionExpiry: r.U32(), Limits: r.limits()}
	case wirePaused:
		out.Kind = UpPaused
	case wireQuery:
		q := &Query{Purge: f.Flags&flagYes != 0, ID: r.U64(), Kind: QueryKind(r.U8()), Limit: int(r.U32()), Tenant: r.String()}
		q.ClientID, q.Filter, q.Cursor = mqtt.ClientID(r.String()), r.String(), r.String()
		out.Kind, out.Query = UpQuery, q
		r.Bad = r.Bad || q.Kind < QueryClients || q.Kind > QueryMatch
	default:
		return f.Malformed("a gateway sends no such frame")
	}
	if err := check(f, &r, upFlags[f.Kind], f.Kind == wireQuery); err != nil {
		return err
	}
	b.Frames = append(b.Frames, out)
	return nil
}

// upFlags are the flags that each frame of a gateway may have.
var upFlags = map[byte]byte{
	wireOpen:    flagYes | flagWill | flagExpiry | flagGuest | flagCell,
	wirePublish: flagQoS | flagRetain | flagDup | flagExpiry,
	wireClose:   flagExpiry,
	wireQuery:   flagYes,
}

// check returns an error if r did not take the whole body, if f has other flags
// than allowed, or a channel though it is of none.
func check(f wire.Frame, r *reader, allowed byte, channelless bool) error {
	if err := f.Check(&r.Reader, allowed); err != nil {
		return err
	}
	if channelless && f.ID != 0 {
		return f.Malformed("has a channel, but is of none")
	}
	return nil
}
