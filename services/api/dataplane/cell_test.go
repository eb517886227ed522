// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/telemetry"
)

// featured is a broker at the other end of a link that both ends know some features of.
type featured struct {
	*fakeBroker
	features uint32
}

func (b *featured) Features() uint32 { return b.features }

// A broker that would lose the link over a question of cells is not asked it, and is asked others.
func TestQuery_Cell(t *testing.T) {
	for features, asked := range map[uint32]int{link.Features: 2, link.Features &^ link.FeatureGrowth: 1} {
		fake := &fakeBroker{open: map[link.Channel]*link.Open{}}
		p, err := New(Config{Name: "test", Log: telemetry.Discard(), Dial: func(_ context.Context, gw link.Gateway) (link.Broker, error) {
			fake.gw = gw
			return &featured{fake, features}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		_, err = p.Query(ctx, link.Query{Kind: link.QueryCell, Tenant: "acme", Limit: 4})
		if (err == nil) != (asked == 2) || err != nil && !errs.Is(err, errs.Unavailable) {
			t.Errorf("with the features %b: %v", features, err)
		}
		if _, err := p.Query(ctx, link.Query{Kind: link.QueryUsage, Tenant: "acme"}); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if len(fake.kinds) != asked {
			t.Errorf("with the features %b it was asked %v", features, fake.kinds)
		}
	}
}
