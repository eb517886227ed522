// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

// What is sent over a link that has ended, while nobody has told so yet, has one
// outcome: an error at once, or an answer.
func TestPeer_EndedLink(t *testing.T) {
	near, far := wire.Pipe()
	go func() {
		if c, err := wire.New(t.Context(), far, wire.Config{Node: "b"}); err == nil {
			<-t.Context().Done()
			_ = c.Close()
		}
	}()
	conn, err := wire.New(t.Context(), near, wire.Config{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(&Stats{})
	p.up(conn)
	_ = conn.Close()
	outcomes := map[string]int{}
	note := func(what string) func(Answer) { return func(Answer) { outcomes[what]++ } }
	e := Enqueue{Tenant: "acme", Parts: []partition.ID{1}, Message: mqtt.Message{Topic: []byte("t"), QoS: 1}}
	if err := p.enqueue(&e, note("enqueue")); err != nil {
		outcomes["enqueue"]++
	}
	if err := p.ask("acme", []byte("?"), note("ask")); err != nil {
		outcomes["ask"]++
	}
	p.down()
	if outcomes["enqueue"] != 1 || outcomes["ask"] != 1 {
		t.Errorf("there are so many outcomes: %v, expected one each", outcomes)
	}
}
