// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"reflect"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

func samples() []Enqueue {
	return []Enqueue{
		{Tenant: "acme", From: "pump-1", Origin: 3, Parts: []partition.ID{1, 65534}, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("on")}},
		{
			Tenant: "acme", From: "pump-1", Origin: 3, N: 1 << 40, Keep: true, Retain: 9,
			Members: []Member{{7, "worker", "$share/g/a/#"}, {0, "", "$share/h/+"}},
			Message: mqtt.Message{
				Topic: []byte("a/b"), Payload: []byte{}, Properties: []byte{1, 0}, QoS: mqtt.ExactlyOnce, Retain: true, HasExpiry: true, Expiry: 60,
			},
		},
	}
}

// one cuts the only frame out of b.
func one(t testing.TB, b []byte) (f wire.Frame) {
	t.Helper()
	if err := wire.EachFrame(b, 1, func(x wire.Frame) error { f = x; return nil }); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEnqueue(t *testing.T) {
	for _, want := range samples() {
		f := one(t, appendEnqueue(nil, 77, &want))
		if f.Kind != wireEnqueue || f.ID != 77 {
			t.Errorf("%+v", f)
		}
		// What was there before leaves nothing behind.
		got := samples()[1]
		if err := readEnqueue(f, &got); err != nil {
			t.Fatal(err)
		}
		again := appendEnqueue(nil, 77, &got)
		if again := one(t, again); !reflect.DeepEqual(again, f) {
			t.Errorf("got %+v, expected %+v", got, want)
		}
		if len(got.Members) != len(want.Members) || len(got.Parts) != len(want.Parts) || got.N != want.N || got.Message.Expiry != want.Message.Expiry {
			t.Errorf("got %+v, expected %+v", got, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, want := range []Answer{{Reason: mqtt.QuotaExceeded}, {Hit: true}} {
		f := one(t, appendAnswer(nil, 5, want))
		if got, err := readAnswer(f); err != nil || got != want || f.ID != 5 {
			t.Errorf("%+v %v, expected %+v", got, err, want)
		}
	}
}

// Whatever comes is read or refused, and what is read is written the same way.
func FuzzEnqueue(f *testing.F) {
	for _, e := range samples() {
		b := appendEnqueue(nil, 1, &e)
		f.Add(b[1], b[wire.FrameHeader:])
	}
	f.Fuzz(func(t *testing.T, flags byte, body []byte) {
		in := wire.Frame{Kind: wireEnqueue, Flags: flags, ID: 1, Body: body}
		var e Enqueue
		if err := readEnqueue(in, &e); err != nil {
			return
		}
		if again := one(t, appendEnqueue(nil, 1, &e)); again.Flags != flags || string(again.Body) != string(body) {
			t.Errorf("%x is read as %+v, which is %x", body, e, again.Body)
		}
	})
}
