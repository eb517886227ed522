// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/wire"
)

// Answers are for people: they are rare, and their encoding is plain rather
// than small.

// maxAnswer is the largest answer that is sent, in bytes by size; instead of a
// larger one the asker has an error. One retained message of any size fits.
const maxAnswer = 256<<20 + 64<<10

// size is what the encoding of a takes, or some bytes more.
func (a *Answer) size() int {
	const lengths = 32 // of what follows, each
	n := 128 + len(a.Error) + len(a.Next)
	for i := range a.Clients {
		c := &a.Clients[i]
		n += clientLeast + lengths + len(c.ClientID)
		for _, label := range [...]string{c.Labels.Protocol, c.Labels.Listener, c.Labels.Username, c.Labels.Peer, c.Labels.Gateway} {
			n += len(label)
		}
		for j := range c.Subscriptions {
			n += lengths + len(c.Subscriptions[j].Filter)
		}
	}
	for i := range a.Retained {
		n += retainedLeast + lengths + a.Retained[i].Message.Size()
	}
	return n
}

// appendAnswer appends
//
//	id u64 | usage | error | next | clients | retained | RetainedSet if flagSet
func appendAnswer(dst []byte, a *Answer) []byte {
	var flags byte
	if a.Found {
		flags = flagYes
	}
	if a.Usage.RetainedSet != 0 {
		flags |= flagSet
	}
	dst, body := open(dst, wireAnswer, flags, 0)
	dst = binary.BigEndian.AppendUint64(dst, a.ID)
	u := &a.Usage
	for _, n := range [...]int64{u.Connections, u.PersistentSessions, u.Subscriptions, u.QueueMessages, u.QueueBytes, u.Retained, u.RetainedBytes} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = wire.AppendBytes(dst, a.Error)
	dst = wire.AppendBytes(dst, a.Next)
	dst = binary.AppendUvarint(dst, uint64(len(a.Clients)))
	for i := range a.Clients {
		dst = appendClient(dst, &a.Clients[i])
	}
	dst = binary.AppendUvarint(dst, uint64(len(a.Retained)))
	var scratch []byte
	for i := range a.Retained {
		m := &a.Retained[i]
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.StoredAt))
		dst = append(dst, MessageFlags(&m.Message))
		scratch = AppendMessage(scratch[:0], &m.Message)
		dst = wire.AppendBytes(dst, scratch)
	}
	if u.RetainedSet != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(u.RetainedSet))
	}
	return wire.ShutFrame(dst, body)
}

func (r *reader) answer(flags byte) *Answer {
	a := &Answer{
		Found: flags&flagYes != 0, ID: r.U64(),
		Usage: Usage{
			Connections: r.I64(), PersistentSessions: r.I64(), Subscriptions: r.I64(),
			QueueMessages: r.I64(), QueueBytes: r.I64(), Retained: r.I64(), RetainedBytes: r.I64(),
		},
		Error: r.String(), Next: r.String(),
	}
	for range r.Length(clientLeast) {
		a.Clients = append(a.Clients, r.client())
	}
	for range r.Length(retainedLeast) {
		info := RetainedInfo{StoredAt: r.I64()}
		flags := r.U8()
		body := read(r.Bytes())
		info.Message = ReadMessage(&body.Reader, flags)
		// Answers leave the turn that brought them: they own their memory.
		info.Message = info.Message.Clone()
		r.Bad = r.Bad || body.Bad || flags&^(flagQoS|flagRetain|flagExpiry) != 0
		a.Retained = append(a.Retained, info)
	}
	if flags&flagSet != 0 {
		a.Usage.RetainedSet = r.I64()
	}
	return a
}

// The least bytes that a client and a retained message take.
const (
	clientLeast   = 1 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 1 + 5 + 1
	retainedLeast = 8 + 1 + 1 + 2
)

func appendClient(dst []byte, c *ClientInfo) []byte {
	var flags byte
	if c.Connected {
		flags = flagYes
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.ConnectedAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.DisconnectedAt))
	dst = binary.BigEndian.AppendUint32(dst, c.SessionExpiry)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.QueueMessages))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.QueueBytes))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Inflight))
	dst = binary.BigEndian.AppendUint64(dst, c.Dropped)
	dst = wire.AppendBytes(dst, c.ClientID)
	dst = appendLabels(dst, &c.Labels)
	dst = binary.AppendUvarint(dst, uint64(len(c.Subscriptions)))
	for i := range c.Subscriptions {
		dst = appendSubscription(dst, &c.Subscriptions[i])
	}
	return dst
}

func (r *reader) client() ClientInfo {
	flags := r.U8()
	c := ClientInfo{
		Connected: flags&flagYes != 0, ConnectedAt: r.I64(), DisconnectedAt: r.I64(), SessionExpiry: r.U32(),
		QueueMessages: r.I64(), QueueBytes: r.I64(), Inflight: int(r.I64()), Dropped: r.U64(),
		ClientID: r.String(), Labels: r.labels(),
	}
	r.Bad = r.Bad || flags&^flagYes != 0
	for range r.Length(3) {
		c.Subscriptions = append(c.Subscriptions, r.subscription())
	}
	return c
}
