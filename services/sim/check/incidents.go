// SPDX-License-Identifier: Apache-2.0

package check

// Place is where a session is: at a broker that serves its partition.
type Place struct {
	Broker    string
	Partition int
}

// incidents are when that happened last which may have a message come twice: how many there were then.
type incidents struct {
	moved      int
	brokers    map[string]int
	links      map[[2]string]int
	partitions map[int]int
	// given are by broker when it has last lost a partition.
	given map[string]int
}

// TenantMoved is called when it is decided how far the tenant has gone on its way to other partitions.
func (m *Messages) TenantMoved() { m.incidents.moved = len(m.all) }

// BrokerLost is called when a broker ends or begins.
func (m *Messages) BrokerLost(name string) { note(&m.incidents.brokers, name, len(m.all)) }

// LinkLost is called when what one broker sends to another one may have arrived or not.
func (m *Messages) LinkLost(from, to string) {
	note(&m.incidents.links, [2]string{from, to}, len(m.all))
}

// PartitionServed is called when a broker begins to serve a partition, and when one no longer does that
// had taken itself for its owner.
func (m *Messages) PartitionServed(id int) { note(&m.incidents.partitions, id, len(m.all)) }

// GivenUp is called when a broker no longer serves one of its partitions. What was on its way to several of
// them at once, and was not written in each, comes again to all.
func (m *Messages) GivenUp(broker string) { note(&m.incidents.given, broker, len(m.all)) }

func note[K comparable](of *map[K]int, k K, n int) {
	if *of == nil {
		*of = map[K]int{}
	}
	(*of)[k] = n
}

// Interrupted is called when a device has another connection, or its session another owner.
func (m *Messages) Interrupted(id string) {
	r := m.device(id)
	r.since = len(m.all)
}

// calm reports whether nothing has happened since a message was published to what has carried it to a
// session: the publisher's connection, the partitions and brokers of both sessions, the link between
// these, and another partition of the receiver's broker, if it was lost there. What has happened to others is no excuse.
func (m *Messages) calm(p *Publish, to Place) bool {
	i := &m.incidents
	return !p.Again && p.at >= max(i.moved, m.device(p.From).since,
		i.partitions[p.by.Partition], i.partitions[to.Partition],
		i.brokers[p.by.Broker], i.brokers[to.Broker], i.given[to.Broker], i.links[[2]string{p.by.Broker, to.Broker}])
}

// once holds a message that came when nothing had happened to what carried it since it was published: it
// comes once, and is no repetition.
func (m *Messages) once(id string, r *receiver, d delivery, at Place) {
	p := d.Publish
	r.times[p]++
	switch {
	case !m.calm(p, at):
	case p.at >= r.since && r.times[p] > 1:
		m.Broken("%s gets %q at QoS %d again, with no connection and no broker lost on its way since it was published", id, p.Payload, p.QoS)
	case p.at >= r.since && d.dup:
		m.Broken("%s gets %q with DUP, and it is the first time [MQTT-3.3.1-1]", id, p.Payload)
	case r.times[p] > 1 && !d.dup:
		m.Broken("%s gets %q again without DUP, with nothing lost but its own connection since [MQTT-3.3.1-1]", id, p.Payload)
	}
}
