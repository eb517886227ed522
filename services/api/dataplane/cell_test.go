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

// A broker that would lose the link over a question is not asked it, and is asked others. The
// features that the questions need are those that the API says it has: others no link has.
func TestQuery_Features(t *testing.T) {
	for _, c := range []struct {
		kind     link.QueryKind
		features uint32
		asked    int
	}{
		{link.QueryCell, link.Features, 2},
		{link.QueryCell, link.Features &^ link.FeatureGrowth, 1},
		{link.QueryCell, new(Plane).Features(), 2},
		{link.QueryForget, link.Features, 2},
		{link.QueryForget, link.Features &^ link.FeatureForget, 1},
		{link.QueryForget, new(Plane).Features(), 2},
		{link.QueryQueue, link.Features &^ link.FeatureLooks, 1},
		{link.QueryQueue, new(Plane).Features(), 2},
		{link.QueryMatch, link.Features &^ link.FeatureLooks, 1},
		{link.QueryMatch, new(Plane).Features(), 2},
	} {
		features, asked := c.features, c.asked
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
		_, err = p.Query(ctx, link.Query{Kind: c.kind, Tenant: "acme", Limit: 4})
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
