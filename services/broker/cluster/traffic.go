// SPDX-License-Identifier: Apache-2.0

package cluster

import "github.com/manormq/manor/infra/wire"

// traffic are bytes of links.
type traffic struct{ sent, received uint64 }

func (t *traffic) add(c *wire.Conn) {
	sent, heard := c.Traffic()
	t.sent += sent
	t.received += heard
}

// Traffic is how many bytes went over links to and from other brokers since the start.
// It never goes back.
func (m *Mesh) Traffic() (sent, received uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.past
	for _, d := range m.peers {
		if c := d.link(); c != nil {
			now.add(c)
		}
	}
	for c := range m.accepted {
		now.add(c)
	}
	// A link that is ending is for a moment in neither.
	m.told = traffic{max(m.told.sent, now.sent), max(m.told.received, now.received)}
	return m.told.sent, m.told.received
}

// ended counts what a link to another broker had.
func (m *Mesh) ended(c *wire.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past.add(c)
}

// link is the link that there is now, or nil.
func (p *peer) link() *wire.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}
