// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/operate"
)

func adminCluster() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "look at the members of the cluster, and change them"}
	join := shows("join", "say how a broker joins: by being started", "cluster/join")
	join.Args = cobra.ArbitraryArgs // VerneMQ's discovery-node=
	c.AddCommand(
		showCluster(), shows("gateways", "list the gateways and the brokers that they have links to", "cluster/gateways"), join, token(), drain(), leave(), clusterConfig(),
		shows("rebalance", "say what is left to move, which the brokers do by themselves", "cluster/rebalance"),
		shows("upgrade-check", "compare the versions of the brokers", "cluster/upgrade-check"),
	)
	return c
}

// clusterConfig is cluster config: what holds for all brokers.
func clusterConfig() *cobra.Command {
	set := &cobra.Command{
		Use:   "set NAME VALUE",
		Short: "change a setting on all brokers, at once and for good; default takes it back",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return request{http.MethodPost, "cluster/config/set", url.Values{"name": {args[0]}, "value": {args[1]}}}.show(cmd)
		},
	}
	c := &cobra.Command{Use: "config", Short: "look at settings that hold for all brokers, and change them"}
	c.AddCommand(shows("show", "list the settings of the cluster", "cluster/config/show"), set)
	return c
}

// showCluster is cluster show: VerneMQ's answer in JSON, and for people the gateways below.
func showCluster() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "list the brokers, how they do, and the gateways", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := (request{http.MethodGet, "cluster/show", url.Values{}}).show(cmd); err != nil {
				return err
			}
			if asJSON, err := adminJSON(cmd); err != nil || asJSON {
				return err
			}
			_, all, err := request{http.MethodGet, "cluster/gateways", url.Values{}}.ask(cmd)
			if err != nil || len(all) == 0 || len(all[0].Table) == 0 {
				return nil // an older broker does not know them, one on its own has none
			}
			_, _ = fmt.Fprintln(cmd.OutOrStdout())
			return writeElements(cmd.OutOrStdout(), all)
		},
	}
}

func token() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "make join tokens"}
	create := &cobra.Command{
		Use:   "create",
		Short: "make a token with which one new broker joins, once",
		Long: "Make a token with which one new broker joins, once: brokerd --name NAME --join HOST:PORT --token TOKEN. Who has it may\n" +
			"become a broker of the cluster and read everything, so it is a secret. It is made by a broker that has the CA's key.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			values := url.Values{}
			for _, name := range []string{"ttl", "node"} {
				if v, _ := cmd.Flags().GetString(name); v != "" {
					values.Set(name, v)
				}
			}
			return request{http.MethodPost, "cluster/token/create", values}.show(cmd)
		},
	}
	create.Flags().String("ttl", "1h", "for how long it is good, 1s to 168h")
	create.Flags().String("node", "", "the only name that it is good for; empty is any that no broker has")
	c.AddCommand(create)
	return c
}

// waitFlags are those of commands that wait, as VerneMQ has them.
func waitFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("node", "", "the broker")
	f.IntP("summary-interval", "i", 5, "seconds between two lines about what is left")
	f.IntP("timeout", "t", 60, "seconds to wait; the work goes on, and the command may be given again")
}

func drain() *cobra.Command {
	c := &cobra.Command{
		Use:   "drain --node NAME",
		Short: "have a broker give up all its partitions, without losing anything",
		Long: "Have a broker give up all its partitions, without losing anything: others get what it has, sessions move to them, and it\n" +
			"stays a member that has nothing to do. The command waits until that is so. --undo has it take partitions again, as does\n" +
			"a restart.",
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := nodeArgument(cmd, args)
			if err != nil {
				return err
			}
			if undo, _ := cmd.Flags().GetBool("undo"); undo {
				values.Set("undo", "true")
				return request{http.MethodPost, "cluster/drain", values}.show(cmd)
			}
			if err := drained(cmd, values); err != nil {
				return err
			}
			return write(cmd, map[string]string{"node": values.Get("node"), "state": "drained"}, values.Get("node")+" is drained")
		},
	}
	waitFlags(c)
	c.Flags().Bool("undo", false, "have it take partitions again")
	return c
}

func leave() *cobra.Command {
	c := &cobra.Command{
		Use:   "leave --node NAME",
		Short: "drain a broker, then make it no member of the cluster any more",
		Long: "Drain a broker, then make it no member of the cluster any more: its process ends. Before a broker of this name starts\n" +
			"again its data folder must be emptied.\n\n" +
			"With --force a broker leaves that is down and will not come back with what it has: its replicas are made anew on\n" +
			"others. Partitions of which nobody else has a replica in sync are listed; they stay unserved until they are abandoned.",
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := nodeArgument(cmd, args)
			if err != nil {
				return err
			}
			if force, _ := cmd.Flags().GetBool("force"); force {
				values.Set("force", "true")
			} else if err := drained(cmd, values); err != nil {
				return err
			}
			return request{http.MethodPost, "cluster/leave", values}.show(cmd)
		},
	}
	waitFlags(c)
	c.Flags().Bool("force", false, "the broker is down and lost")
	c.Flags().BoolP("kill_sessions", "k", false, "as VerneMQ's; sessions move to other brokers with or without it")
	return c
}

// pollEvery is how often a command that waits looks.
const pollEvery = 500 * time.Millisecond

// drained has a broker drain and waits until it has nothing any more, saying on standard
// error what is left. The error is Unavailable when the time is up.
func drained(cmd *cobra.Command, values url.Values) error {
	every, err := cmd.Flags().GetInt("summary-interval")
	if err != nil {
		return err
	}
	most, err := cmd.Flags().GetInt("timeout")
	if err != nil {
		return err
	}
	if every < 1 || most < 0 {
		return errs.New(errs.Invalid, "expected --summary-interval of 1 s or more and --timeout of 0 s or more, found %d and %d", every, most)
	}
	if _, _, err := (request{http.MethodPost, "cluster/drain", values}).ask(cmd); err != nil {
		return err
	}
	begun, said := time.Now(), time.Now()
	for {
		_, all, err := request{http.MethodGet, "cluster/show", url.Values{}}.ask(cmd)
		if err != nil {
			return err
		}
		state, left := howDrained(all, values.Get("node"))
		if state == "drained" {
			return nil
		}
		if time.Since(begun) >= time.Duration(most)*time.Second {
			return errs.New(errs.Unavailable, "%s is %s after %d s: %s; it goes on, give the command again to wait longer", values.Get("node"), state, most, left)
		}
		if time.Since(said) >= time.Duration(every)*time.Second {
			said = time.Now()
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is %s: %s\n", values.Get("node"), state, left)
		}
		select {
		case <-time.After(pollEvery):
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		}
	}
}

// howDrained finds in the answer to cluster show how a broker does.
func howDrained(all []operate.Element, node string) (state, left string) {
	if len(all) > 0 {
		for _, r := range all[0].Table {
			if operate.String(r.Get("Node")) == node {
				return operate.String(r.Get("State")), fmt.Sprintf("it owns %s partitions and follows %s", operate.String(r.Get("Owned")), operate.String(r.Get("Followed")))
			}
		}
	}
	return "no member", "it has left"
}
