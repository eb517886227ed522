// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api/dataplane"
)

// Client is a session and its connection.
type Client struct {
	ClientID       string         `json:"client_id"`
	Connected      bool           `json:"connected"`
	Username       string         `json:"username,omitempty"`
	Protocol       string         `json:"protocol,omitempty" doc:"3.1, 3.1.1 or 5."`
	Peer           string         `json:"peer,omitempty" doc:"The client's address."`
	Listener       string         `json:"listener,omitempty"`
	Gateway        string         `json:"gateway,omitempty"`
	ConnectedAt    *time.Time     `json:"connected_at" doc:"null if it never was."`
	DisconnectedAt *time.Time     `json:"disconnected_at" doc:"null if it never was."`
	SessionExpiry  uint32         `json:"session_expiry" doc:"Seconds that the session outlives its connection; 4294967295 is for ever."`
	QueueMessages  int64          `json:"queue_messages"`
	QueueBytes     int64          `json:"queue_bytes"`
	Inflight       int            `json:"inflight" doc:"Messages sent and not acknowledged."`
	Dropped        uint64         `json:"dropped" doc:"Messages that a limit has taken."`
	Subscriptions  []Subscription `json:"subscriptions,omitempty" doc:"Of one client only, not in lists."`
}

// Subscription is one subscription of a session.
type Subscription struct {
	Filter            string `json:"filter"`
	QoS               int    `json:"qos"`
	NoLocal           bool   `json:"no_local"`
	RetainAsPublished bool   `json:"retain_as_published"`
	RetainHandling    int    `json:"retain_handling"`
	SubscriptionID    uint32 `json:"subscription_id,omitempty"`
}

// ClientList is a page of clients.
type ClientList struct {
	Items []Client `json:"items"`
	Next  *string  `json:"next" doc:"The cursor of the next page; null at the end."`
}

type (
	listClientsInput struct {
		InTenant
		Paged
	}
	listClientsOutput struct{ Body ClientList }
	clientInput       struct {
		InTenant
		ClientID string `path:"client_id" doc:"The client id, percent-encoded."`
	}
	clientOutput      struct{ Body Client }
	deleteClientInput struct {
		InTenant
		Write
		ClientID string `path:"client_id" doc:"The client id, percent-encoded."`
		Session  string `query:"session" enum:"keep,purge" default:"keep" doc:"purge forgets the session too, with its subscriptions and its queue."`
	}
)

func (s *Server) clientRoutes() {
	const base = "/v1/tenants/{tenant}/clients"
	register(s, operation("list-clients", http.MethodGet, base, "Clients", "List clients in order of their client ids"), s.listClients)
	register(s, operation("get-client", http.MethodGet, base+"/{client_id}", "Clients", "Get a client with its subscriptions"), s.getClient)
	register(s, operation("delete-client", http.MethodDelete, base+"/{client_id}", "Clients", "Disconnect a client"), s.deleteClient)
}

func (s *Server) listClients(ctx context.Context, in *listClientsInput) (*listClientsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryClients, Tenant: tenantOf(ctx).ID, Cursor: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &listClientsOutput{Body: ClientList{Items: []Client{}, Next: writeCursor(a.Next)}}
	for i := range a.Clients {
		if !dataplane.Own(&a.Clients[i]) {
			out.Body.Items = append(out.Body.Items, clientBody(&a.Clients[i]))
		}
	}
	return out, nil
}

func clientBody(c *link.ClientInfo) Client {
	out := Client{
		ClientID: c.ClientID, Connected: c.Connected,
		Username: c.Labels.Username, Protocol: c.Labels.Protocol, Peer: c.Labels.Peer, Listener: c.Labels.Listener, Gateway: c.Labels.Gateway,
		ConnectedAt: unixMilli(c.ConnectedAt), DisconnectedAt: unixMilli(c.DisconnectedAt),
		SessionExpiry: c.SessionExpiry, QueueMessages: c.QueueMessages, QueueBytes: c.QueueBytes, Inflight: c.Inflight, Dropped: c.Dropped,
	}
	out.Subscriptions = subscriptionBodies(c.Subscriptions)
	return out
}

func unixMilli(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

// client asks about one client, and does what kind says.
func (s *Server) client(ctx context.Context, id string, q link.Query) (*link.Answer, error) {
	missing := errs.Coded(errs.NotFound, "client_not_found", "there is no client %q", id)
	q.Tenant, q.ClientID = tenantOf(ctx).ID, mqtt.ClientID(id)
	if q.Kind != link.QueryClient && dataplane.MayBeOwn(id) {
		if _, err := s.client(ctx, id, link.Query{Kind: link.QueryClient}); err != nil {
			return nil, err
		}
	}
	a, err := s.cfg.Data.Query(ctx, q)
	if err == nil && (!a.Found || len(a.Clients) > 0 && dataplane.Own(&a.Clients[0])) {
		err = missing
	}
	return a, err
}

func (s *Server) getClient(ctx context.Context, in *clientInput) (*clientOutput, error) {
	a, err := s.client(ctx, in.ClientID, link.Query{Kind: link.QueryClient})
	if err != nil {
		return nil, err
	}
	if len(a.Clients) == 0 {
		return nil, errs.New(errs.Internal, "the broker found a client and did not describe it")
	}
	return &clientOutput{Body: clientBody(&a.Clients[0])}, nil
}

func (s *Server) deleteClient(ctx context.Context, in *deleteClientInput) (*struct{}, error) {
	if in.DryRun {
		unchanged(ctx)
		_, err := s.client(ctx, in.ClientID, link.Query{Kind: link.QueryClient})
		return nil, err
	}
	t := tenantOf(ctx)
	if err := change(ctx, t.Organization, t.ID, "client "+in.ClientID, nil); err != nil {
		return nil, err
	}
	if _, err := s.client(ctx, in.ClientID, link.Query{Kind: link.QueryKick, Purge: in.Session == "purge"}); err != nil {
		return nil, err
	}
	return nil, changed(ctx, nil, map[string]string{"session": in.Session})
}
