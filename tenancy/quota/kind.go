// SPDX-License-Identifier: Apache-2.0

package quota

import "github.com/manormq/manor/tenancy"

// Kind is a quota that the gateways of a region share. The numbers are on the wire.
type Kind uint8

// The kinds. All but Connections are rates.
const (
	Connections Kind = iota
	ConnectRate
	PublishRate
	DeliveryRate
	BytesInRate
	BytesOutRate
	// Kinds is how many there are.
	Kinds
)

// String is the quota's name in tenancy.QuotaNames.
func (k Kind) String() string {
	return [...]string{"connections", "connect_rate", "publish_rate", "delivery_rate", "bytes_in_rate", "bytes_out_rate"}[k]
}

// LimitsOf are the limits of l by Kind; a negative one is none.
func LimitsOf(l *tenancy.Limits) [Kinds]int64 {
	return [Kinds]int64{
		Connections: l.Connections, ConnectRate: l.ConnectRate, PublishRate: l.PublishRate,
		DeliveryRate: l.DeliveryRate, BytesInRate: l.BytesInRate, BytesOutRate: l.BytesOutRate,
	}
}

// Resource is one quota of one tenant.
type Resource struct {
	Tenant string
	Kind   Kind
}
