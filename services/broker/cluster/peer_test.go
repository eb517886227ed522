// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// What is sent after its link has ended, and before that was noticed, is answered
// once, or refused and not answered: an answer too many would complete what was never
// received.
func TestPeer_LinkHasEnded(t *testing.T) {
	a, b := wire.Pipe()
	far := make(chan error, 1)
	go func() {
		_, err := wire.New(t.Context(), b, wire.Config{Node: "far"})
		far <- err
	}()
	conn, err := wire.New(t.Context(), a, wire.Config{Node: "near"})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-far; err != nil {
		t.Fatal(err)
	}
	p := newPeer(new(Stats))
	p.up(conn, 1)
	_ = conn.Close()
	var answers [2]int
	_, err = p.enqueue(&Enqueue{Tenant: "acme", Message: mqtt.Message{Topic: []byte("t"), QoS: 1}}, AnyLink, func(Answer) { answers[0]++ })
	refused := [2]error{
		err,
		p.ask("acme", []byte("?"), func(Answer) { answers[1]++ }),
	}
	p.down()
	for i, n := range answers {
		if want := map[bool]int{true: 1, false: 0}[refused[i] == nil]; n != want {
			t.Errorf("%d: the error is %v, and there were %d answers", i, refused[i], n)
		}
	}
}
