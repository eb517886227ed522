// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// What an owner cannot read goes to another in sync, with all that was acknowledged, and
// does not come back; where there is none it stands still, and is seen to.
func TestHost_Refuse(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(b *bubble) {
		at := b.owner(1)
		other := map[string]string{"a": "b", "b": "a"}[at]
		if err := b.append(at, 1, 7); err != nil {
			t.Fatal(err)
		}
		h := b.hosts[at]
		h.Refuse(1, h.Entry(1).Table.Epoch)
		b.eventually("the partition is at the other", func() bool { return b.owner(1) == other })
		if !b.has(other, 1, 7) {
			t.Error("what was acknowledged is not there")
		}
		if h.Roles()[1] != partition.Alarmed || h.Stats().Alarms == 0 || h.Stats().Alarmed != 1 {
			t.Errorf("role %d, %+v", h.Roles()[1], h.Stats())
		}
		b.eventually("the refusing one is not in sync", func() bool { e := b.hosts[other].Entry(1).Table; return !e.IsInSync(partition.Broker(at)) })
		if err := b.append(other, 1, 8); err != nil {
			t.Errorf("an append at the other: %v", err)
		}
		if b.owner(1) != other {
			t.Errorf("the owner is %q", b.owner(1))
		}
	})
	inBubble(t, []string{"a"}, func(b *bubble) {
		h := b.hosts["a"]
		epoch := h.Entry(1).Table.Epoch
		h.Refuse(1, epoch)
		b.eventually("alarmed", func() bool { return h.Stats().Alarmed == 1 && !h.Entry(1).Serving })
		done := make(chan error, 1)
		var batch kv.Batch
		h.Append(1, epoch, batch.Encoded(), func(err error) { done <- err })
		if err := <-done; !errors.Is(err, host.ErrNotOwner) {
			t.Errorf("an append: %v", err)
		}
	})
}
