// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

func event() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "event", Short: "what happened to the clients of a tenant: who came, went, was refused or slowed down"})
	c.AddCommand(eventList(), eventFollow())
	return c
}

// kindsFlag adds the flag of kinds of events.
func kindsFlag(c *cobra.Command) *[]string {
	return c.Flags().StringSlice("kind", nil, "of connected, disconnected, denied, throttled, dropped, quota_80, quota_100, source_applied and source_failed, with commas; all if left out")
}

func eventList() *cobra.Command {
	list := &cobra.Command{Use: "list TENANT", Short: "list what happened, the oldest first", Args: cobra.ExactArgs(1)}
	clientID := list.Flags().String("client", "", "a client id; all if left out")
	listed := listEvents(list)
	list.RunE = func(cmd *cobra.Command, args []string) error {
		return listed(cmd, func(c *client.Client, o ...client.Option) (*client.Page[client.Event], error) {
			return c.Events(cmd.Context(), args[0], append(o, client.Query("client", *clientID))...)
		})
	}
	return list
}

// listEvents adds the flags of a list of events, and returns what writes it from its pages.
func listEvents(list *cobra.Command) func(*cobra.Command, func(*client.Client, ...client.Option) (*client.Page[client.Event], error)) error {
	kinds := kindsFlag(list)
	since := list.Flags().Duration("since", time.Hour, "how long ago to begin, such as 30m or 168h")
	limit := list.Flags().Int("limit", 1000, "at most how many")
	return func(cmd *cobra.Command, page func(*client.Client, ...client.Option) (*client.Page[client.Event], error)) error {
		if *limit < 1 || *since <= 0 {
			return errs.New(errs.Invalid, "expected --limit and --since above 0")
		}
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		options := []client.Option{client.Query("kind", strings.Join(*kinds, ",")), client.Query("from", time.Now().Add(-*since).UTC().Format(time.RFC3339))}
		all, more, cursor := []client.Event{}, true, ""
		for more && len(all) < *limit {
			p, err := page(c, append(options, client.Query("cursor", cursor), client.Query("limit", fmt.Sprint(min(*limit-len(all), 1000))))...)
			if err != nil {
				return err
			}
			all = append(all, p.Items...)
			if more = p.Next != nil; more {
				cursor = *p.Next
			}
		}
		if more {
			fmt.Fprintf(cmd.ErrOrStderr(), "There are more: these are the oldest %d. Say a later --since, or a larger --limit.\n", len(all))
		}
		return writeList(cmd, all, "AT KIND CLIENT USER ADDRESS GATEWAY REASON", func(e client.Event) []any {
			return []any{e.At.UTC().Format("2006-01-02 15:04:05"), e.Kind, e.ClientID, e.Username, e.Address, e.Gateway, eventReason(&e)}
		})
	}
}

// eventReason is the reason of an event in a line.
func eventReason(e *client.Event) string {
	s := cmp.Or(e.Reason, e.Why)
	if e.Reason != "" && e.Why != "" {
		s += ": " + e.Why
	}
	if e.Topic != "" {
		s += " (" + e.Topic + ")"
	}
	if e.Count > 1 {
		s += fmt.Sprintf(", %d times", e.Count)
	}
	return s
}

func eventFollow() *cobra.Command {
	follow := &cobra.Command{Use: "follow TENANT", Short: "write what happens from now on, a line each, until Ctrl-C", Args: cobra.ExactArgs(1)}
	clientID := follow.Flags().String("client", "", "a client id; all if left out")
	kinds := kindsFlag(follow)
	follow.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		var failed error
		tell := func(e client.Event) {
			line := strings.Join([]string{e.At.UTC().Format("2006-01-02 15:04:05"), e.Kind, e.ClientID, e.Address, eventReason(&e)}, "  ")
			if err := write(cmd, e, strings.TrimRight(line, " ")); err != nil {
				failed = err
			}
		}
		for cmd.Context().Err() == nil && failed == nil { // the API ends it after five minutes
			if err := c.FollowEvents(cmd.Context(), args[0], tell, client.Query("client", *clientID), client.Query("kind", strings.Join(*kinds, ","))); err != nil {
				return err
			}
		}
		return failed
	}
	return follow
}
