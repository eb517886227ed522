// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/binary"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

type routeKeys struct{ r *region }

func newRouteKeys(r *region) *routeKeys {
	k := &routeKeys{r}
	r.meta.Watch("routes", func(cs []metadata.Change) {
		for _, c := range cs {
			p := partition.ID(binary.BigEndian.Uint16([]byte(c.Key.Name)))
			n := c.Key.Name[2]
			r.shards.FarRoute(c.Key.Name[3:3+n], c.Key.Name[3+n:], p, c.New != nil)
		}
	}, nil)
	return k
}

func name(tenant, filter string, p partition.ID) metadata.Key {
	b := append(binary.BigEndian.AppendUint16(nil, uint16(p)), byte(len(tenant)))
	return metadata.Key{Space: "routes", Name: string(b) + tenant + filter}
}

func (k *routeKeys) Add(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	k.r.meta.Write([]metadata.Mutation{{Key: name(tenant, filter, p), Value: []byte{1}, Rank: epoch}}, nil, reached)
}

func (k *routeKeys) Remove(tenant, filter string, p partition.ID, epoch uint64) {
	k.r.meta.Write([]metadata.Mutation{{Key: name(tenant, filter, p), Delete: true, Rank: epoch}}, nil, nil)
}
