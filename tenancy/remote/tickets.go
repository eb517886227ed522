// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
)

// TicketSecrets are what all gateways derive the keys of TLS session tickets from;
// nil while they are not known. The snapshot has none of them: after a start
// without the control plane, clients begin new sessions.
func (d *Directory) TicketSecrets() *tenancy.TicketSecrets { return d.tickets.Load() }

func (d *Directory) watchTickets(ctx context.Context, b bus.Bucket) {
	_ = b.Watch(ctx, d.watch(ofTickets), func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced || u.Entry.Key != tenancy.TicketsKey:
		case u.Deleted:
			d.tickets.Store(nil)
		default:
			s, err := tenancy.DecodeTickets(u.Entry.Value, d.openKey)
			if err != nil {
				d.log.Error("the secrets of TLS session tickets cannot be read; the old ones stay", "error", err)
				return
			}
			d.tickets.Store(s)
		}
	})
}
