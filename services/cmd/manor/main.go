// SPDX-License-Identifier: Apache-2.0

// Command manor is Manor for people: its commands are those of services/ctl,
// and manor dev, which runs the whole product on this machine, in one process
// (product.go) or as the processes of a region (processes.go). It owns what it
// starts until it ends.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/ctl"
	"github.com/manormq/manor/tenancy"
)

func main() {
	self, err := os.Executable()
	if err == nil {
		root := ctl.New(self)
		root.AddCommand(dev(), natsServer(), metricsDocument())
		node.StrictUsage(root)
		err = root.ExecuteContext(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manor:", err)
		os.Exit(node.ExitCode(err))
	}
}

// dev is manor dev.
func dev() *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:   "dev",
		Short: "run the whole product on this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := ctl.JSON(cmd)
			if err != nil {
				return err
			}
			o.json = o.json || asJSON
			if err := o.validate(); err != nil {
				return err
			}
			err = runDev(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err == nil && !o.json {
				fmt.Fprintf(cmd.OutOrStdout(), "stopped; data kept in %s\n", o.data)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "data", "folder of everything that is kept")
	f.IntVar(&o.offset, "listen-offset", 0, "number that is added to every port, so that two can run on one machine")
	f.StringVar(&o.bind, "bind", "127.0.0.1", "address of the listeners for clients and the API; the operator's stay on loopback")
	f.StringVar(&o.anonymous, "anonymous", "", "tenant (made if missing, with no quota) that clients without credentials are let into on the plain listeners; loopback only")
	f.IntVar(&o.brokers, "brokers", 0, "broker processes; 0 runs everything in one process")
	f.IntVar(&o.gateways, "gateways", 0, "gateway processes; 0 runs everything in one process")
	f.IntVar(&o.tenancies, "tenancies", 1, "processes of the API, which are equal: any one of them does")
	f.IntVar(&o.nats, "nats", 1, "NATS servers of the control plane, 1, 3 or 5; three go on when one is lost")
	f.IntVar(&o.replicas, "replicas", 2, "brokers that keep each partition, 1 to 5, where there are several")
	f.IntVar(&o.zones, "zones", 0, "zones a, b, c… over which the brokers are spread; 0 is none")
	f.StringVar(&o.acme, "acme-directory", "", "URL of the ACME directory of a certificate authority for custom domains, such as pebble's; empty is none")
	f.DurationVar(&o.grace, "deletion-grace", tenancy.DefaultDeletionGrace, "for how long a deleted tenant is kept and can be restored")
	f.StringVar(&o.sources, "sources", "", "folder whose TENANT/vmq.passwd and TENANT/vmq.acl say what credentials and policy a tenant has, and are applied when they change; empty is none")
	f.StringVar(&o.acmeCA, "acme-ca", "", "PEM file with the roots by which that authority's server is known")
	f.StringVar(&o.resolver, "dns", "", "host:port of the DNS server that is asked whether a domain is a tenant's; empty is the system's")
	f.StringVar(&o.policies, "policies", "", "folder with the installation's own policy, *.rego with package quota or admission; empty is none")
	f.BoolVar(&o.json, "json", false, "print one line of JSON, once all listeners accept, and nothing else (as -o json)")
	f.BoolVar(&o.noRestart, "no-restart", false, "do not start a process again that dies")
	f.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error; lines go to standard error")
	return c
}
