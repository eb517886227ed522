// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// Beat is the value of a broker's heartbeat key. It is rewritten each second.
type Beat struct {
	// Count grows with each beat, so that the value is another one.
	Count uint64
	// Zone is where the broker runs, empty if nobody said.
	Zone string
	// Labels are the partitions that it takes: those with one of these labels. The
	// empty label, that of partitions without one, is taken by brokers without
	// labels.
	Labels []string
	// Weight is its share of the partitions, 1 to 16; 0 counts as 1.
	Weight uint8
	// Draining says that it gives up its partitions, owned or followed.
	Draining bool
	// Stopping says that it ends and is expected back, or has begun and does not know yet
	// what the others do: it owns nothing, and keeps the replicas that it has.
	Stopping bool
	// Busy says that it wants no more partitions for now; with Stopping, that it has begun.
	Busy bool
	// Cluster and Links are the addresses, as "host:port", at which it takes the links
	// of other brokers and those of gateways; empty if it takes none.
	Cluster, Links string
	// Version is that of its software, for people; empty if nobody said.
	Version string
}

// ErrBadBeat is returned for bytes that are no heartbeat.
var ErrBadBeat = errors.New("placement: heartbeat is not readable")

const (
	// beatFirst ended with the labels.
	beatFirst    = 1
	beatVersion  = 2
	beatDraining = 1 << 0
	beatBusy     = 1 << 1
	beatStopping = 1 << 2
	beatFlags    = beatDraining | beatBusy | beatStopping
	maxWeight    = 16
)

// Append encodes b: version, flags, weight u8, count u64, zone and the number of
// labels and each of them, cluster, links, software version; texts have their length
// (u8) in front and are cut at 255 bytes. A later version may add to the end.
func (b *Beat) Append(dst []byte) []byte {
	var flags byte
	if b.Draining {
		flags |= beatDraining
	}
	if b.Busy {
		flags |= beatBusy
	}
	if b.Stopping {
		flags |= beatStopping
	}
	dst = binary.BigEndian.AppendUint64(append(dst, beatVersion, flags, b.Weight), b.Count)
	dst = appendText(dst, b.Zone)
	labels := b.Labels[:min(len(b.Labels), 255)]
	dst = append(dst, byte(len(labels)))
	for _, l := range labels {
		dst = appendText(dst, l)
	}
	return appendText(appendText(appendText(dst, b.Cluster), b.Links), b.Version)
}

func appendText(dst []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(dst, byte(len(s))), s...)
}

// ParseBeat decodes what Append wrote, here or in another version of the software. It
// copies. The error is ErrBadBeat.
func ParseBeat(b []byte) (Beat, error) {
	if len(b) < 12 || b[0] < beatFirst || b[1] > beatFlags || b[2] > maxWeight {
		return Beat{}, ErrBadBeat
	}
	out := Beat{Draining: b[1]&beatDraining != 0, Busy: b[1]&beatBusy != 0, Stopping: b[1]&beatStopping != 0, Weight: b[2], Count: binary.BigEndian.Uint64(b[3:])}
	version := b[0]
	b = b[11:]
	text := func() (string, bool) {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return "", false
		}
		s := string(b[1 : 1+int(b[0])])
		b = b[1+len(s):]
		return s, true
	}
	var ok bool
	if out.Zone, ok = text(); !ok || len(b) == 0 {
		return Beat{}, ErrBadBeat
	}
	n := int(b[0])
	b = b[1:]
	for range n {
		l, ok := text()
		if !ok {
			return Beat{}, ErrBadBeat
		}
		out.Labels = append(out.Labels, l)
	}
	if version == beatFirst {
		if len(b) != 0 {
			return Beat{}, ErrBadBeat
		}
		return out, nil
	}
	for _, field := range []*string{&out.Cluster, &out.Links, &out.Version} {
		if *field, ok = text(); !ok {
			return Beat{}, ErrBadBeat
		}
	}
	if version == beatVersion && len(b) != 0 {
		return Beat{}, ErrBadBeat
	}
	return out, nil
}

// BeatKey is the key of a broker's heartbeat in the bucket of heartbeats: names may
// have any bytes, keys may not.
func BeatKey(b partition.Broker) string { return base64.RawURLEncoding.EncodeToString([]byte(b)) }

// ParseBeatKey is the name that BeatKey made a key of, and whether it is one: the
// bucket has other keys too.
func ParseBeatKey(key string) (partition.Broker, bool) {
	name, err := base64.RawURLEncoding.DecodeString(key)
	return partition.Broker(name), err == nil && len(name) > 0
}

// Accepts reports whether the broker takes partitions of a label.
func (b *Beat) Accepts(label string) bool {
	return label == "" && len(b.Labels) == 0 || slices.Contains(b.Labels, label)
}
