// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Event is something that happened to a client of a tenant.
type Event struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // connected, disconnected, denied, throttled, dropped, quota_80 or quota_100
	ClientID string    `json:"client_id,omitempty"`
	Username string    `json:"username,omitempty"`
	Address  string    `json:"address,omitempty"`
	Listener string    `json:"listener,omitempty"`
	Gateway  string    `json:"gateway,omitempty"`
	Protocol string    `json:"protocol,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Why      string    `json:"why,omitempty"`
	Topic    string    `json:"topic,omitempty"`
	Count    int       `json:"count,omitempty"`
}

// Events lists what happened to clients, the oldest first; Query names "client",
// "kind", "from", "to", "limit" and "cursor".
func (c *Client) Events(ctx context.Context, tenant string, o ...Option) (*Page[Event], error) {
	return ask[Page[Event]](ctx, c, "list-events", []string{"tenant", tenant}, nil, o)
}

// Timeline is Events of one client.
func (c *Client) Timeline(ctx context.Context, tenant, clientID string, o ...Option) (*Page[Event], error) {
	return ask[Page[Event]](ctx, c, "get-client-timeline", []string{"tenant", tenant, "client_id", clientID}, nil, o)
}

// FollowEvents calls f, one at a time, with what happens from now on, until the API
// ends the stream, which is no error and after five minutes at most, or ctx is done. An
// Event of the kind "missed" says that some were left out.
func (c *Client) FollowEvents(ctx context.Context, tenant string, f func(Event), o ...Option) error {
	patient := *c.http
	patient.Timeout = 0
	body, err := (&Client{base: c.base, key: c.key, http: &patient}).open(ctx, "follow-events", []string{"tenant", tenant}, nil, o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	for name := ""; lines.Scan(); {
		line := lines.Text()
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
			continue
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		e := Event{Kind: name}
		if name == "missed" {
			e.At = time.Now()
			err = json.Unmarshal([]byte(data), &e.Why)
		} else {
			err = json.Unmarshal([]byte(data), &e)
		}
		if err != nil {
			return errs.New(errs.Internal, "follow-events: the answer is not what was expected: %w", err)
		}
		f(e)
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return errs.New(errs.Unavailable, "follow-events: %w", err)
	}
	return nil
}
