// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"flag"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire/wiretest"
	"github.com/manormq/manor/services/broker/partition"
)

var rewrite = flag.Bool("rewrite", false, "write the bytes of docs/wire/cluster.md again")

// TestDocument holds the bytes in docs/wire/cluster.md to those on the wire.
func TestDocument(t *testing.T) {
	const file = "../../../docs/wire/cluster.md"
	golden := map[string][]byte{
		"request": appendEnqueue(nil, 5, &Enqueue{
			Tenant: "acme", From: "pump", Origin: 3, N: 9, After: []After{{1, 8}}, Parts: []partition.ID{1}, Members: []Member{{7, "w", "$share/g/a/#"}},
			Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: mqtt.ExactlyOnce},
		}),
		"answer": appendAnswer(nil, 5, Answer{Hit: true, Again: true}),
	}
	wiretest.Document(t, file, golden, *rewrite)
}
