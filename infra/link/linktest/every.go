// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
)

// EveryUp is a batch with every frame that a gateway sends and every field of
// each. Encoding it and decoding that gives it again.
func EveryUp() *link.Up {
	will := mqtt.Message{
		Topic: []byte("gone/é"), Payload: []byte("will"), Properties: []byte{0x01, 0x01},
		Expiry: 90, HasExpiry: true, QoS: mqtt.ExactlyOnce, Retain: true,
	}
	settings := link.Settings{
		OnlineMessages: 8, KeepOffline: true, Inflight: 9, Retry: 10, Member: 11, LIFO: true, UpgradeQoS: true, QuietTakeover: true, Multiple: true, Balance: true,
		HandOff: true, Subscribe: true, Unsubscribe: true,
		Share: link.ShareStickyTopic,
	}
	tenant := link.TenantLimits{
		Told: true, Subscriptions: 20, SharedGroups: 21, SharedGroupMembers: 22, FanOut: 23, StorageBytes: 1 << 40, RetainedRate: -1, RetainedSubscribe: 24,
	}
	return &link.Up{Frames: []link.UpFrame{
		{Kind: link.UpOpen, Channel: 1, Open: &link.Open{
			Tenant: "acme", ClientID: "sensor-1", CleanStart: true, SessionExpiry: 3600, ReceiveMaximum: 20, Credit: 65536,
			Will:          &mqtt.Will{Message: will, Delay: 30},
			Limits:        link.Limits{QueueMessages: 1000, QueueBytes: 1 << 20, Subscriptions: -1, ReceiveMaximum: 100, Retained: 5, RetainedBytes: 6, Sessions: 7, Tenant: tenant, Settings: settings},
			GrantRevision: 42,
			Labels:        link.Labels{Protocol: "5", Listener: "mqtts", Username: "default", Peer: "192.0.2.1:4711", Gateway: "gateway-1"},
		}},
		{Kind: link.UpOpen, Channel: 0xFFFFFFFF, Open: &link.Open{Guest: true}},
		{Kind: link.UpOpen, Channel: 4, Open: &link.Open{Tenant: "acme", ClientID: "moved", Credit: 1 << 19, Resume: 1 << 40}},
		{Kind: link.UpOpen, Channel: 5, Open: &link.Open{Tenant: "acme", ClientID: "celled", Partitions: 4, Placement: 1 << 33}},
		{Kind: link.UpPaused, Channel: 4},
		{Kind: link.UpPublish, Channel: 1, PacketID: 7, Dup: true, Message: mqtt.Message{
			Topic: []byte("a/b"), Properties: []byte{0x26, 0, 1, 'k', 0, 1, 'v'}, Payload: []byte("payload"),
			Expiry: 60, HasExpiry: true, QoS: mqtt.AtLeastOnce, Retain: true,
		}},
		{Kind: link.UpPublish, Channel: 2, Message: mqtt.Message{Topic: []byte("t"), Properties: []byte{}, Payload: []byte{}}},
		{Kind: link.UpAck, Channel: 1, Ack: mqtt.Puback, PacketID: 1},
		{Kind: link.UpAck, Channel: 2, Ack: mqtt.Pubrec, PacketID: 2, Reason: mqtt.QuotaExceeded},
		{Kind: link.UpAck, Channel: 2, Ack: mqtt.Pubrel, PacketID: 3},
		{Kind: link.UpAck, Channel: 1, Ack: mqtt.Pubcomp, PacketID: 0xFFFF},
		{Kind: link.UpCredit, Channel: 1, Bytes: 1 << 40},
		{Kind: link.UpCredit, Channel: 2, Bytes: 1},
		{Kind: link.UpSubscribe, Channel: 1, PacketID: 9, Subscribe: []mqtt.Subscription{
			{Filter: "a/+/#", QoS: mqtt.ExactlyOnce, NoLocal: true, RetainAsPublished: true, RetainHandling: mqtt.RetainDontSend, ID: 268_435_455},
			{Filter: "$share/g/x"},
		}},
		{Kind: link.UpUnsubscribe, Channel: 1, PacketID: 10, Unsubscribe: []string{"a/+/#", "$share/g/x"}},
		{Kind: link.UpTooLarge, Channel: 2, PacketID: 11},
		{Kind: link.UpClose, Channel: 1, Close: &link.Close{Cause: link.CloseWithWill, SessionExpiry: 5, HasSessionExpiry: true}},
		{Kind: link.UpClose, Channel: 2, Close: &link.Close{Cause: link.CloseLost}},
		{Kind: link.UpLimits, Channel: 3, Limits: &link.NewLimits{
			SessionExpiry: 60, Limits: link.Limits{QueueMessages: -1, ReceiveMaximum: 1, Settings: link.Settings{Multiple: true, Share: link.ShareRandom}},
		}},
		{Kind: link.UpQuery, Query: &link.Query{
			ID: 99, Kind: link.QueryClients, Tenant: "acme", ClientID: "c", Filter: "f/#", Cursor: "after", Limit: 100, Purge: true,
		}},
	}}
}

// EveryDown is a batch with every frame that a broker sends and every field of
// each. Encoding it and decoding that gives it again.
func EveryDown() *link.Down {
	return &link.Down{
		Messages: []mqtt.Message{
			{Topic: []byte("a/b"), Properties: []byte{0x01, 0x01}, Payload: []byte("payload"), Expiry: 60, HasExpiry: true, QoS: mqtt.AtLeastOnce, Retain: true},
			{Topic: []byte("c"), Properties: []byte{}, Payload: []byte{}},
		},
		Frames: []link.DownFrame{
			{Kind: link.DownOpened, Channel: 1, SessionPresent: true, Bytes: 65536},
			{Kind: link.DownRefused, Channel: 2, Reason: mqtt.QuotaExceeded, Text: "the tenant has 5 sessions, its limit"},
			{Kind: link.DownDeliver, Channel: 1, Slot: 0, PacketID: 3, QoS: mqtt.AtLeastOnce, Dup: true, Retain: true, SubscriptionIDs: []uint32{1, 268_435_455}},
			{Kind: link.DownDeliver, Channel: 3, Slot: 1},
			{Kind: link.DownDeliver, Channel: 4, Slot: 0, PacketID: 1, QoS: mqtt.ExactlyOnce},
			{Kind: link.DownAck, Channel: 1, Ack: mqtt.Puback, PacketID: 1, Reason: mqtt.NoMatchingSubscribers},
			{Kind: link.DownAck, Channel: 3, Ack: mqtt.Pubcomp, PacketID: 2},
			{Kind: link.DownSuback, Channel: 1, PacketID: 9, Reasons: []mqtt.ReasonCode{mqtt.GrantedQoS2, mqtt.NotAuthorized}},
			{Kind: link.DownUnsuback, Channel: 1, PacketID: 10, Reasons: []mqtt.ReasonCode{mqtt.NoSubscriptionExisted}},
			{Kind: link.DownWindow, Channel: 1, Bytes: 1 << 33},
			{Kind: link.DownWindow, Channel: 3, Bytes: 17},
			{Kind: link.DownClose, Channel: 1, Reason: mqtt.SessionTakenOver, Text: "another connection has this client id"},
			{Kind: link.DownAnswer, Answer: &link.Answer{
				ID: 99, Found: true, Error: "why", Next: "cursor",
				Clients: []link.ClientInfo{{
					ClientID: "sensor-1", Connected: true, Labels: link.Labels{Protocol: "3.1.1", Gateway: "gateway-1"},
					ConnectedAt: 1, DisconnectedAt: 2, SessionExpiry: 3, QueueMessages: 4, QueueBytes: 5, Inflight: 6, Dropped: 7,
					Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: mqtt.AtLeastOnce}},
				}, {ClientID: "other"}},
				Retained: []link.RetainedInfo{{
					Message:  mqtt.Message{Topic: []byte("r"), Properties: []byte{}, Payload: []byte("kept"), QoS: mqtt.ExactlyOnce, Retain: true},
					StoredAt: 1_700_000_000_000,
				}},
				Usage: link.Usage{Connections: 1, PersistentSessions: 2, Subscriptions: 3, QueueMessages: 4, QueueBytes: 5, Retained: 6, RetainedBytes: 7, RetainedSet: 8},
			}},
			{Kind: link.DownGoaway},
			{Kind: link.DownLoad, Load: load.Shed},
			{Kind: link.DownTable, Table: &link.TableUpdate{
				Partitions: 1024, Brokers: []link.TableBroker{{Name: "broker-1", Address: "192.0.2.1:44054"}, {Name: "broker-2", Address: "b2.example:44054"}},
				Owners: []link.TableOwner{
					{Partition: 1023, Epoch: 1 << 40, Broker: "broker-2", Draining: true},
					{Partition: 0, Epoch: 1, Broker: "broker-gone"},
					{Partition: 1, Epoch: 2},
					{Partition: 2, Epoch: 3, Draining: true},
					{Partition: 3, Epoch: 1, Broker: "broker-gone"},
				},
			}},
			{Kind: link.DownTable, Table: &link.TableUpdate{Partitions: link.MaxPartitions}},
			{Kind: link.DownTable, Table: &link.TableUpdate{
				Partitions: 64, Shared: 60, Cells: []link.TableCell{{Tenant: "acme", Revision: 1 << 33, Partitions: []uint16{60, 63}}, {Tenant: "back", Revision: 3}},
				Owners: []link.TableOwner{{Partition: 60, Epoch: 7}},
			}},
			{Kind: link.DownMoved, Channel: 5, Moved: &link.Moved{Partition: 1023, Epoch: 1 << 40, Broker: "broker-2"}},
			{Kind: link.DownMoved, Channel: 6, Moved: &link.Moved{}},
			{Kind: link.DownPause, Channel: 7, Bytes: 1 << 40},
			{Kind: link.DownNote, Note: &link.Note{Tenant: "acme", Loose: true, Reason: "subscriptions", Count: 100, Level: level.Reached}},
			{Kind: link.DownNote, Channel: 1, Note: &link.Note{
				Tenant: "acme", ClientID: "sensor-1", Dropped: true, Reason: "fan_out", Text: "more receivers than the quota fan_out allows", Count: 7,
			}},
			{Kind: link.DownNote, Channel: 1, Note: &link.Note{Tenant: "acme", ClientID: "sensor-1", Reason: "shared_groups", Text: "as many as there may be"}},
			{Kind: link.DownNote, Note: &link.Note{Loose: true, Tenant: "acme", Reason: "subscriptions", Count: 1}},
		},
	}
}
