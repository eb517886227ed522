// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/manormq/manor/services/broker/partition"
)

// Space is the name of the key space in the metadata.
const Space = "routes"

const (
	keyVersion = 1
	keyHead    = 4 // version, partition, length of the tenant
	maxTenant  = math.MaxUint8
	maxFilter  = math.MaxUint16 + 8 // a filter of MQTT, with $share/ of another length
	sharePart  = "$share/"
)

// Why a key or a value is not read.
var (
	errKey   = errors.New("routes: expected a key of version 1: partition, tenant and filter")
	errValue = errors.New("routes: expected three numbers, of which members is the greatest")
)

// Key is what a route is for.
type Key struct {
	// Tenant has 1 to 255 bytes.
	Tenant string
	// Filter is a topic filter, or $share/NAME/FILTER of a group.
	Filter    string
	Partition partition.ID
}

// Group reports whether k is of a shared subscription.
func (k Key) Group() bool { return strings.HasPrefix(k.Filter, sharePart) }

func (k Key) valid() bool {
	return k.Tenant != "" && len(k.Tenant) <= maxTenant && k.Filter != "" && len(k.Filter) <= maxFilter
}

// Name is the name of a valid k in the space.
func (k Key) Name() string {
	b := appendPrefix(make([]byte, 0, keyHead+len(k.Tenant)+len(k.Filter)), k.Partition)
	b = append(b, byte(len(k.Tenant)))
	b = append(b, k.Tenant...)
	return string(append(b, k.Filter...))
}

// appendPrefix appends what the names of the keys of a partition begin with, and no
// others.
func appendPrefix(dst []byte, p partition.ID) []byte {
	return binary.BigEndian.AppendUint16(append(dst, keyVersion), uint16(p))
}

// ParseKey reads a name in the space.
func ParseKey(name string) (Key, error) {
	if len(name) < keyHead || name[0] != keyVersion || len(name) < keyHead+int(name[3]) {
		return Key{}, errKey
	}
	k := Key{Partition: partition.ID(name[1])<<8 | partition.ID(name[2])}
	k.Tenant, k.Filter = name[keyHead:keyHead+int(name[3])], name[keyHead+int(name[3]):]
	if !k.valid() {
		return Key{}, errKey
	}
	return k, nil
}

// GroupState is what others know of the members of a group in one partition.
type GroupState struct {
	// Members is how many there are. With 0 the group is not there.
	Members int
	// Online of them are connected, Durable of them outlive their connection.
	Online, Durable int
}

func (g GroupState) append(dst []byte) []byte {
	for _, n := range []int{g.Members, g.Online, g.Durable} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// valid: 0 <= Online, Durable <= Members <= MaxInt32.
func (g GroupState) valid() bool {
	return g.Members >= 0 && g.Members <= math.MaxInt32 &&
		g.Online >= 0 && g.Online <= g.Members && g.Durable >= 0 && g.Durable <= g.Members
}

// urgent reports whether others would choose who is gone, or not choose who is
// there, for as long as they knew g instead of h.
func (g GroupState) urgent(h GroupState) bool {
	return (g.Members == 0) != (h.Members == 0) || (g.Online == 0) != (h.Online == 0) || (g.Durable == 0) != (h.Durable == 0)
}

// ParseGroupState reads the value of a group's key.
func ParseGroupState(b []byte) (GroupState, error) {
	var n [3]int
	for i := range n {
		v, used := binary.Uvarint(b)
		if used <= 0 || v > math.MaxInt32 {
			return GroupState{}, errValue
		}
		n[i], b = int(v), b[used:]
	}
	g := GroupState{n[0], n[1], n[2]}
	if len(b) > 0 || !g.valid() || g.Members == 0 {
		return GroupState{}, errValue
	}
	return g, nil
}
