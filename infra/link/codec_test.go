// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/link/linktest"
	"github.com/manormq/manor/infra/mqtt"
)

// encodeUp encodes all of b; pieces are the batches that it takes.
func encodeUp(b *link.Up) (pieces [][]byte, counts []int) {
	for first := 0; first < len(b.Frames); {
		var out []byte
		var n int
		out, n, first = link.AppendUp(nil, b, first)
		pieces, counts = append(pieces, out), append(counts, n)
	}
	return pieces, counts
}

func encodeDown(b *link.Down) (pieces [][]byte, counts []int) {
	var e link.DownEncoder
	for first := 0; first < len(b.Frames); {
		var out []byte
		var n int
		out, n, first = e.Append(nil, b, first)
		pieces, counts = append(pieces, out), append(counts, n)
	}
	return pieces, counts
}

func TestUp_EveryFrameCrosses(t *testing.T) {
	want := linktest.EveryUp()
	pieces, counts := encodeUp(want)
	var got link.Up
	if err := link.DecodeUp(pieces[0], counts[0], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(pieces) != 1 {
		t.Errorf("%d pieces, want 1", len(pieces))
	}
}

func TestDown_EveryFrameCrosses(t *testing.T) {
	want := linktest.EveryDown()
	pieces, counts := encodeDown(want)
	var got link.Down
	if err := link.DecodeDown(pieces[0], counts[0], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Subscription Identifiers can make the deliveries of one small message larger
// than any batch: they are cut too.
func TestDown_SubscriptionIdentifiersAreCut(t *testing.T) {
	ids := make([]uint32, 2000)
	for i := range ids {
		ids[i] = 200_000_000 + uint32(i)
	}
	b := link.Down{Messages: []mqtt.Message{{Topic: []byte("t")}}}
	for ch := range link.Channel(1000) {
		b.Frames = append(b.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: ch, SubscriptionIDs: ids})
	}
	pieces, counts := encodeDown(&b)
	next := link.Channel(0)
	for i, p := range pieces {
		if len(p) > 1<<20 {
			t.Errorf("piece %d has %d bytes", i, len(p))
		}
		var got link.Down
		if err := link.DecodeDown(p, counts[i], &got); err != nil {
			t.Fatal(err)
		}
		for j := range got.Frames {
			f := &got.Frames[j]
			if f.Channel != next || len(f.SubscriptionIDs) != len(ids) || string(got.Messages[f.Slot].Topic) != "t" {
				t.Fatalf("piece %d: delivery %d is of channel %d with %d identifiers, want channel %d", i, j, f.Channel, len(f.SubscriptionIDs), next)
			}
			next++
		}
	}
	if next != 1000 {
		t.Errorf("%d deliveries crossed", next)
	}
}

// An answer that no batch can hold does not end the link of everybody: who
// asked hears that it is too large.
func TestDown_AnswerTooLargeIsAnError(t *testing.T) {
	a := &link.Answer{ID: 7, Found: true}
	payload := make([]byte, 1<<20)
	for range 300 {
		a.Retained = append(a.Retained, link.RetainedInfo{Message: mqtt.Message{Topic: []byte("t"), Payload: payload}})
	}
	pieces, counts := encodeDown(&link.Down{Frames: []link.DownFrame{{Kind: link.DownAnswer, Answer: a}}})
	if len(pieces) != 1 || len(pieces[0]) > 1<<10 {
		t.Fatalf("%d pieces, the first of %d bytes", len(pieces), len(pieces[0]))
	}
	var got link.Down
	if err := link.DecodeDown(pieces[0], counts[0], &got); err != nil {
		t.Fatal(err)
	}
	if r := got.Frames[0].Answer; r.ID != 7 || r.Error == "" || r.Found {
		t.Errorf("the answer is %+v", r)
	}
}

func TestDown_AMessageCrossesOncePerBatch(t *testing.T) {
	b := link.Down{Messages: []mqtt.Message{{Topic: []byte("unused"), Payload: make([]byte, 5000)}, {Topic: []byte("t"), Payload: make([]byte, 1000)}}}
	for ch := range link.Channel(10_000) {
		b.Frames = append(b.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: ch, Slot: 1})
	}
	pieces, _ := encodeDown(&b)
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	if limit := 10_000*9 + 1100; size > limit {
		t.Errorf("10,000 deliveries of 1,000 bytes take %d bytes, want at most %d", size, limit)
	}
}

// A batch that is cut holds in each piece what its frames refer to.
func TestDown_CutBatches(t *testing.T) {
	var b link.Down
	for i := range 100 {
		b.Messages = append(b.Messages, mqtt.Message{Topic: []byte{byte(i)}, Properties: []byte{}, Payload: make([]byte, 20_000)})
	}
	for ch := range link.Channel(1000) {
		b.Frames = append(b.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: ch, Slot: uint16(ch) % 100})
		if ch%7 == 0 {
			b.Frames = append(b.Frames, link.DownFrame{Kind: link.DownAck, Channel: ch, Ack: mqtt.Puback, PacketID: uint16(ch)})
		}
	}
	pieces, counts := encodeDown(&b)
	if len(pieces) < 3 {
		t.Fatalf("%d pieces, want more", len(pieces))
	}
	n := 0
	for i, p := range pieces {
		if len(p) > 320<<10 {
			t.Errorf("piece %d has %d bytes", i, len(p))
		}
		var got link.Down
		if err := link.DecodeDown(p, counts[i], &got); err != nil {
			t.Fatal(err)
		}
		for _, f := range got.Frames {
			want := b.Frames[n]
			n++
			if f.Kind != want.Kind || f.Channel != want.Channel {
				t.Fatalf("frame %d is %v of %d, want %v of %d", n, f.Kind, f.Channel, want.Kind, want.Channel)
			}
			if f.Kind == link.DownDeliver && !bytes.Equal(got.Messages[f.Slot].Topic, b.Messages[want.Slot].Topic) {
				t.Fatalf("frame %d delivers another message", n)
			}
		}
	}
	if n != len(b.Frames) {
		t.Errorf("%d frames crossed of %d", n, len(b.Frames))
	}
}

func TestDecode_RefusesWhatIsMalformed(t *testing.T) {
	h := func(kind, flags, ch byte, length byte, body ...byte) []byte {
		return append([]byte{kind, flags, 0, 0, 0, ch, 0, 0, 0, length}, body...)
	}
	for name, c := range map[string]struct {
		data  []byte
		count int
	}{
		"half a header":                {[]byte{2, 0, 0}, 1},
		"longer than the batch":        {h(7, 0, 1, 9, 0, 1), 1},
		"bytes behind the last":        {append(h(7, 0, 1, 2, 0, 1), 0), 1},
		"fewer than counted":           {h(7, 0, 1, 2, 0, 1), 2},
		"unknown type":                 {h(0x7f, 0, 1, 0), 1},
		"left over":                    {h(7, 0, 1, 3, 0, 1, 2), 1},
		"unknown flags":                {h(7, 1, 1, 2, 0, 1), 1},
		"half an ack":                  {h(3, 0, 0, 7, 0, 0, 0, 1, 1, 0, 0), 1},
		"ack of no kind":               {h(3, 0, 0, 8, 0, 0, 0, 1, 9, 0, 0, 1), 1},
		"vector with a channel":        {h(3, 0, 1, 8, 0, 0, 0, 1, 1, 0, 0, 1), 1},
		"QoS 3":                        {h(2, 3, 1, 4, 0, 1, 0, 0), 1},
		"topic beyond the frame":       {h(2, 0, 1, 4, 0, 0, 9, 'a'), 1},
		"cause of no kind":             {h(8, 0, 1, 1, 9), 1},
		"length not in shortest form":  {h(2, 0, 1, 6, 0, 0, 0x81, 0x00, 'a', 0), 1},
		"subscription of handling 3":   {h(4, 0, 1, 5, 0, 1, 0x30, 0, 0), 1},
		"query of no kind":             {h(9, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 1, 99, 0, 0, 0, 1, 0, 0, 0, 0), 1},
		"answer, which is a broker's":  {h(0x4A, 0, 0, 0), 1},
		"deliver, which is a broker's": {h(0x44, 0, 0, 0), 1},
	} {
		var up link.Up
		if err := link.DecodeUp(c.data, c.count, &up); !errors.Is(err, link.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	for name, data := range map[string][]byte{
		"slot without message":       h(0x44, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0),
		"table with half an owner":   h(0x4D, 0, 0, 5, 0, 1, 0, 0, 0),
		"partition beyond the table": h(0x4D, 0, 0, 16, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0, 1),
		"owner that is not there":    h(0x4D, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
		"broker without a name":      h(0x4D, 0, 0, 6, 0, 1, 1, 0, 0, 0),
		"too many partitions":        h(0x4D, 0, 0, 4, 0x80, 1, 0, 0),
		"table with a channel":       h(0x4D, 0, 1, 4, 0, 1, 0, 0),
		"half a move":                h(0x4E, 0, 1, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0),
		"no identifiers":             append(h(0x43, 0, 0, 2, 0, 0), h(0x44, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0x20, 0)...),
	} {
		var down link.Down
		if err := link.DecodeDown(data, 1+bytes.Count(data[:1], []byte{0x43}), &down); !errors.Is(err, link.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestDecode_PublishDoesNotAllocate(t *testing.T) {
	up := link.Up{}
	for range 50 {
		up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPublish, Channel: 1, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("payload")}})
	}
	data, count, _ := link.AppendUp(nil, &up, 0)
	var got link.Up
	if n := testing.AllocsPerRun(100, func() {
		got.Reset()
		if err := link.DecodeUp(data, count, &got); err != nil {
			t.Fatal(err)
		}
		data, count, _ = link.AppendUp(data[:0], &up, 0)
	}); n > 0 {
		t.Errorf("%v allocations for 50 publishes in used memory, want 0", n)
	}
}

// FuzzBatch decodes anything both ways. What decodes, encodes to a batch that
// decodes to the same, and encodes to itself.
func FuzzBatch(f *testing.F) {
	ups, n := encodeUp(linktest.EveryUp())
	f.Add(true, uint16(n[0]), ups[0])
	downs, n := encodeDown(linktest.EveryDown())
	f.Add(false, uint16(n[0]), downs[0])
	f.Add(true, uint16(1), []byte("\x02\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, isUp bool, count uint16, data []byte) {
		if count > math.MaxUint16/2 {
			return
		}
		if isUp {
			var one, two link.Up
			if link.DecodeUp(data, int(count), &one) != nil || len(one.Frames) == 0 {
				return
			}
			first, n := encodeUp(&one)
			if len(first) > 1 {
				return
			}
			if err := link.DecodeUp(first[0], n[0], &two); err != nil {
				t.Fatalf("what was encoded does not decode: %v", err)
			}
			if second, _ := encodeUp(&two); !bytes.Equal(first[0], second[0]) {
				t.Fatalf("encoding is no fixpoint:\n%x\n%x", first[0], second[0])
			}
			if diff := cmp.Diff(one, two); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		var one, two link.Down
		if link.DecodeDown(data, int(count), &one) != nil || len(one.Frames) == 0 {
			return
		}
		first, n := encodeDown(&one)
		if len(first) > 1 {
			return
		}
		if err := link.DecodeDown(first[0], n[0], &two); err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		if second, _ := encodeDown(&two); !bytes.Equal(first[0], second[0]) {
			t.Fatalf("encoding is no fixpoint:\n%x\n%x", first[0], second[0])
		}
		for i := range one.Frames {
			a, b := one.Frames[i], two.Frames[i]
			if a.Kind == link.DownDeliver {
				if diff := cmp.Diff(one.Messages[a.Slot], two.Messages[b.Slot]); diff != "" {
					t.Fatal(diff)
				}
				a.Slot, b.Slot = 0, 0
			}
			if diff := cmp.Diff(a, b); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}
