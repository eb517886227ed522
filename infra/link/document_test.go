// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"flag"
	"net"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/infra/wire/wiretest"
)

var rewrite = flag.Bool("rewrite", false, "write the bytes of docs/wire/link.md again")

// TestDocument holds the bytes in docs/wire/link.md to those on the wire.
func TestDocument(t *testing.T) {
	const file = "../../docs/wire/link.md"
	golden := map[string][]byte{
		"preface": recordPreface(t),
		"up": batch(link.AppendUp(nil, &link.Up{Frames: []link.UpFrame{
			{Kind: link.UpPublish, Channel: 1, PacketID: 7, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: mqtt.AtLeastOnce}},
			{Kind: link.UpAck, Channel: 1, Ack: mqtt.Puback, PacketID: 3},
			{Kind: link.UpAck, Channel: 2, Ack: mqtt.Pubrec, PacketID: 9},
			{Kind: link.UpClose, Channel: 2, Close: &link.Close{Cause: link.CloseNormal}},
		}}, 0)),
		"down": batch(new(link.DownEncoder).Append(nil, &link.Down{
			Messages: []mqtt.Message{{Topic: []byte("a/b"), Payload: []byte("hi")}},
			Frames: []link.DownFrame{
				{Kind: link.DownDeliver, Channel: 1}, {Kind: link.DownDeliver, Channel: 2}, {Kind: link.DownDeliver, Channel: 3},
			},
		}, 0)),
		"table": batch(new(link.DownEncoder).Append(nil, &link.Down{Frames: []link.DownFrame{
			{Kind: link.DownTable, Table: &link.TableUpdate{
				Partitions: 4, Brokers: []link.TableBroker{{Name: "b1", Address: "b1.example:44054"}},
				Owners: []link.TableOwner{{Partition: 0, Epoch: 7, Broker: "b1", Draining: true}, {Partition: 1, Epoch: 2, Broker: "b2"}, {Partition: 3, Epoch: 9}},
			}},
			{Kind: link.DownMoved, Channel: 1, Moved: &link.Moved{Partition: 1, Epoch: 2, Broker: "b2"}},
		}}, 0)),
		"pause": batch(new(link.DownEncoder).Append(nil, &link.Down{Frames: []link.DownFrame{
			{Kind: link.DownPause, Channel: 1, Bytes: 77},
			{Kind: link.DownMoved, Channel: 1, Moved: &link.Moved{Partition: 1, Epoch: 2}},
		}}, 0)),
		"resume": batch(link.AppendUp(nil, &link.Up{Frames: []link.UpFrame{
			{Kind: link.UpPaused, Channel: 1},
			{Kind: link.UpOpen, Channel: 9, Open: &link.Open{Tenant: "acme", ClientID: "pump-7", Credit: 1 << 19, Resume: 77}},
		}}, 0)),
	}
	wiretest.Document(t, file, golden, *rewrite)
}

// batch puts the header before frames, as infra/wire does.
func batch(frames []byte, count, _ int) []byte {
	n := len(frames)
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), byte(count >> 8), byte(count), 0, 0}, frames...)
}

// recordPreface returns what a node writes first.
func recordPreface(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		_, _ = wire.New(context.Background(), a, wire.Config{Node: "gateway-1", Features: link.Features})
	}()
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	return buf[:n]
}
