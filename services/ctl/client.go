// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

func clients() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "client", Short: "the sessions of a tenant and their connections"})
	c.AddCommand(clientList(), clientShow(), clientDisconnect(), clientSubscriptions(), clientQueue(), clientTimeline())
	return c
}

// upTo reads pages of a list until it has most of them, and says on standard error if there
// are more.
func upTo[T any](cmd *cobra.Command, most int, page func(context.Context, ...client.Option) (*client.Page[T], error)) ([]T, error) {
	if most < 1 {
		return nil, errs.New(errs.Invalid, "--limit: expected a number above 0, found %d", most)
	}
	all, cursor := []T{}, ""
	for {
		p, err := page(cmd.Context(), client.Query("cursor", cursor), client.Query("limit", strconv.Itoa(min(most-len(all), 1000))))
		if err != nil {
			return nil, err
		}
		if all = append(all, p.Items...); p.Next == nil {
			return all, nil
		}
		if cursor = *p.Next; len(all) >= most {
			fmt.Fprintf(cmd.ErrOrStderr(), "There are more: these are the first %d. Say a larger --limit.\n", len(all))
			return all, nil
		}
	}
}

// limited adds the flag of upTo.
func limited(c *cobra.Command) *int { return c.Flags().Int("limit", 1000, "at most how many") }

func clientList() *cobra.Command {
	c := &cobra.Command{Use: "list TENANT", Short: "list the clients that have a session or a connection, in order of their client ids", Args: cobra.ExactArgs(1)}
	most := limited(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		all, err := upTo(cmd, *most, func(ctx context.Context, o ...client.Option) (*client.Page[client.Session], error) {
			return c.Sessions(ctx, args[0], o...)
		})
		if err != nil {
			return err
		}
		return writeList(cmd, all, "CLIENT CONNECTED USER PROTOCOL PEER QUEUED INFLIGHT DROPPED", func(s client.Session) []any {
			return []any{s.ClientID, yes(s.Connected), s.Username, s.Protocol, s.Peer, s.QueueMessages, s.Inflight, s.Dropped}
		})
	}
	return c
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func clientShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show TENANT CLIENT",
		Short: "show a client: its connection, its session, and how many subscriptions it has",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			s, err := c.Session(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return write(cmd, s, sessionText(s))
		},
	}
}

// sessionText is a client as people read it.
func sessionText(s *client.Session) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s", s.ClientID, map[bool]string{true: "connected since " + day(s.ConnectedAt), false: "not connected; it was until " + day(s.DisconnectedAt)}[s.Connected])
	if s.Peer != "" {
		fmt.Fprintf(&b, ", from %s by MQTT %s", s.Peer, cmp.Or(s.Protocol, "?"))
	}
	if s.Username != "" {
		fmt.Fprintf(&b, ", as %s", s.Username)
	}
	if s.Gateway != "" {
		fmt.Fprintf(&b, ", at %s (%s)", s.Gateway, s.Listener)
	}
	expiry := fmt.Sprintf("%d s", s.SessionExpiry)
	switch s.SessionExpiry {
	case 0:
		expiry = "not at all"
	case 1<<32 - 1:
		expiry = "for ever"
	}
	fmt.Fprintf(&b, "\nits session outlives the connection: %s; %d messages wait (%d bytes), %d in flight, %d dropped; %d subscriptions",
		expiry, s.QueueMessages, s.QueueBytes, s.Inflight, s.Dropped, len(s.Subscriptions))
	return b.String()
}

func clientDisconnect() *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use:   "disconnect TENANT CLIENT",
		Short: "end the connection of a client; it may come back (manor ban keeps it out)",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.Disconnect(cmd.Context(), args[0], args[1], purge); err != nil {
				return err
			}
			text := args[1] + " is disconnected"
			if purge {
				text += ", and its session is forgotten"
			}
			return write(cmd, map[string]any{"disconnected": args[1], "purged": purge}, text)
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "forget its session too, with its subscriptions and what waits for it")
	return c
}

// subscriptionCells are the columns of a subscription, of which the first is its filter.
func subscriptionCells(s *client.Subscription) []any {
	return []any{s.Filter, s.QoS, yes(s.NoLocal), yes(s.RetainAsPublished), s.RetainHandling, s.SubscriptionID}
}

const subscriptionColumns = "FILTER QOS NO_LOCAL RETAIN_AS_PUBLISHED RETAIN_HANDLING ID"

func clientSubscriptions() *cobra.Command {
	c := &cobra.Command{Use: "subscriptions TENANT CLIENT", Short: "list the subscriptions of a client, in order of their filters", Args: cobra.ExactArgs(2)}
	most := limited(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		all, err := upTo(cmd, *most, func(ctx context.Context, o ...client.Option) (*client.Page[client.Subscription], error) {
			return c.Subscriptions(ctx, args[0], args[1], o...)
		})
		if err != nil {
			return err
		}
		return writeList(cmd, all, subscriptionColumns, func(s client.Subscription) []any { return subscriptionCells(&s) })
	}
	return c
}

func clientQueue() *cobra.Command {
	var most int
	var payloads bool
	c := &cobra.Command{
		Use:   "queue TENANT CLIENT",
		Short: "look at what waits for a client, and take nothing: how much, and which messages are sent next",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 0 || most > 100 {
				return errs.New(errs.Invalid, "--limit: expected a number from 0 to 100, found %d", most)
			}
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			o := []client.Option{client.Query("limit", strconv.Itoa(most))}
			if payloads {
				o = append(o, client.Query("payloads", "true"))
			}
			q, err := c.Queue(cmd.Context(), args[0], args[1], o...)
			if err != nil {
				return err
			}
			return write(cmd, q, queueText(q))
		},
	}
	c.Flags().IntVar(&most, "limit", 20, "at most how many messages to show, up to 100")
	c.Flags().BoolVar(&payloads, "payloads", false, "show payloads, too; it needs the permission messages:read")
	return c
}

// queueText is what waits for a client as people read it.
func queueText(q *client.Queue) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d messages wait (%d bytes), and %d are in flight", q.Messages, q.Bytes, q.Inflight)
	for _, m := range q.Items {
		fmt.Fprintf(&b, "\n%s  QoS %d, %d bytes", m.Topic, m.QoS, m.Size)
		if m.Retain {
			b.WriteString(", retained")
		}
		if m.ExpiresAt != nil {
			b.WriteString(", until " + m.ExpiresAt.UTC().Format("2006-01-02 15:04:05"))
		}
		if m.SharedBy != "" {
			b.WriteString(", by " + m.SharedBy)
		}
		switch {
		case m.Payload != nil:
			fmt.Fprintf(&b, ": %q", *m.Payload)
		case m.PayloadBase64 != nil:
			b.WriteString(": base64 " + *m.PayloadBase64)
		}
	}
	return b.String()
}

func clientTimeline() *cobra.Command {
	c := &cobra.Command{Use: "timeline TENANT CLIENT", Short: "list what happened to a client, the oldest first", Args: cobra.ExactArgs(2)}
	listed := listEvents(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return listed(cmd, func(c *client.Client, o ...client.Option) (*client.Page[client.Event], error) {
			return c.Timeline(cmd.Context(), args[0], args[1], o...)
		})
	}
	return c
}
