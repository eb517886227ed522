// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/manormq/manor/infra/errs"
)

// Main is the command line of manor bench: one run, whose result it writes to
// out as a line of JSON, or with "compare" as first argument a comparison, with
// "overload" what one tenant feels of another's, with "memory" what brokers keep for each
// session, with "revocation" how soon gateways refuse what was revoked, with "directory" what
// many tenants and credentials cost, with "logins" what a connect costs by how the client
// shows who it is, with "checks" what part of the CPU checks have, or with "floor" the
// least broker, until ctx is done.
// program is the path of manor. The error is flag.ErrHelp after a request for
// help, which went to errout; a scenario that fails is an error after its line.
func Main(ctx context.Context, program string, args []string, out, errout io.Writer) error {
	if len(args) > 0 && args[0] == "compare" {
		c := Comparison{Program: program}
		if err := parse("manor bench compare", args[1:], errout, c.Flags); err != nil {
			return err
		}
		return c.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "overload" {
		o := Overload{Program: program}
		if err := parse("manor bench overload", args[1:], errout, o.Flags); err != nil {
			return err
		}
		return o.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "memory" {
		m := Footprint{Program: program}
		if err := parse("manor bench memory", args[1:], errout, m.Flags); err != nil {
			return err
		}
		return m.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "revocation" {
		r := Revocation{Program: program}
		if err := parse("manor bench revocation", args[1:], errout, r.Flags); err != nil {
			return err
		}
		return r.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "directory" {
		var d Directory
		if err := parse("manor bench directory", args[1:], errout, d.Flags); err != nil {
			return err
		}
		return d.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "logins" {
		l := LoginsCost{Program: program}
		if err := parse("manor bench logins", args[1:], errout, l.Flags); err != nil {
			return err
		}
		return l.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "checks" {
		c := Checks{Program: program}
		if err := parse("manor bench checks", args[1:], errout, c.Flags); err != nil {
			return err
		}
		return c.Run(ctx, out)
	}
	if len(args) > 0 && args[0] == "floor" {
		addr := "127.0.0.1:1883"
		declare := func(fs *flag.FlagSet) { fs.StringVar(&addr, "addr", addr, "where to listen, host:port") }
		if err := parse("manor bench floor", args[1:], errout, declare); err != nil {
			return err
		}
		return serveFloor(ctx, addr)
	}
	var o Options
	if err := parse("manor bench", args, errout, o.Flags); err != nil {
		return err
	}
	res, err := Run(o)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(res); err != nil {
		return err
	}
	if res.Error != "" {
		return errs.New(errs.Unavailable, "scenario %s: %s", res.Scenario, res.Error)
	}
	return nil
}

// parse reads args into the flags that declare declares.
func parse(name string, args []string, errout io.Writer, declare func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(errout)
	fs.Usage = func() {
		fmt.Fprintf(errout, "usage: %s [flags]\n", name)
		if name == "manor bench" {
			fmt.Fprintf(errout, "       %s compare [flags]   Manor against mosquitto\n", name)
			fmt.Fprintf(errout, "       %s overload [flags]   what one tenant feels of another's overload\n", name)
			fmt.Fprintf(errout, "       %s memory [flags]   what brokers keep for sessions, subscriptions and retained messages\n", name)
			fmt.Fprintf(errout, "       %s revocation [flags]   how soon gateways refuse what was revoked\n", name)
			fmt.Fprintf(errout, "       %s directory [flags]   what many tenants and credentials cost\n", name)
			fmt.Fprintf(errout, "       %s logins [flags]   what a connect costs by how the client shows who it is\n", name)
			fmt.Fprintf(errout, "       %s checks [flags]   what part of the CPU authentication, authorisation and quotas have\n", name)
			fmt.Fprintf(errout, "       %s floor -addr HOST:PORT   the least broker, to compare with\n", name)
		}
		fs.PrintDefaults()
	}
	declare(fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errs.New(errs.Invalid, "%w", err)
	}
	if fs.NArg() > 0 {
		return errs.New(errs.Invalid, "%s: expected flags only, found %q", name, fs.Arg(0))
	}
	return nil
}
