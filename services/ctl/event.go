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

// eventFilters are the flags of both commands.
func eventFilters(c *cobra.Command) func() []client.Option {
	clientID := c.Flags().String("client", "", "a client id; all if left out")
	kinds := c.Flags().StringSlice("kind", nil, "of connected, disconnected, denied, throttled, dropped, quota_80 and quota_100, with commas; all if left out")
	return func() []client.Option {
		return []client.Option{client.Query("client", *clientID), client.Query("kind", strings.Join(*kinds, ","))}
	}
}

func eventList() *cobra.Command {
	list := &cobra.Command{Use: "list TENANT", Short: "list what happened, the oldest first", Args: cobra.ExactArgs(1)}
	filters := eventFilters(list)
	since := list.Flags().Duration("since", time.Hour, "how long ago to begin, such as 30m or 168h")
	limit := list.Flags().Int("limit", 1000, "at most how many")
	list.RunE = func(cmd *cobra.Command, args []string) error {
		if *limit < 1 || *since <= 0 {
			return errs.New(errs.Invalid, "expected --limit and --since above 0")
		}
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		options := append(filters(), client.Query("from", time.Now().Add(-*since).UTC().Format(time.RFC3339)))
		all, more, cursor := []client.Event{}, true, ""
		for more && len(all) < *limit {
			page, err := c.Events(cmd.Context(), args[0], append(options, client.Query("cursor", cursor), client.Query("limit", fmt.Sprint(min(*limit-len(all), 1000))))...)
			if err != nil {
				return err
			}
			all = append(all, page.Items...)
			if more = page.Next != nil; more {
				cursor = *page.Next
			}
		}
		if more {
			fmt.Fprintf(cmd.ErrOrStderr(), "There are more: these are the oldest %d. Say a later --since, or a larger --limit.\n", len(all))
		}
		return writeList(cmd, all, "AT KIND CLIENT USER ADDRESS GATEWAY REASON", func(e client.Event) []any {
			return []any{e.At.UTC().Format("2006-01-02 15:04:05"), e.Kind, e.ClientID, e.Username, e.Address, e.Gateway, eventReason(&e)}
		})
	}
	return list
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
	filters := eventFilters(follow)
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
			if err := c.FollowEvents(cmd.Context(), args[0], tell, filters()...); err != nil {
				return err
			}
		}
		return failed
	}
	return follow
}
