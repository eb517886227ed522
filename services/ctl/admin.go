// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/operate"
)

// operatorDefault is where a broker's operator listener is by default, operatorEnv the
// variable that says where else.
const (
	operatorDefault = "http://127.0.0.1:8888"
	operatorEnv     = "MANOR_OPERATOR"
)

// admin is manor admin: the commands of VerneMQ's vmq-admin, carried out by any broker
// of the cluster.
func admin() *cobra.Command {
	c := &cobra.Command{
		Use:   "admin",
		Short: "look at a cluster of brokers, and steer it (VerneMQ's vmq-admin)",
		Long: "Look at a cluster of brokers, and steer it. The words and flags are those of VerneMQ's vmq-admin; arguments may be given\n" +
			"as --name=value or as name=value. Any broker of the cluster answers, at the operator listener that --operator names.",
	}
	f := c.PersistentFlags()
	f.String("operator", "", "URL of a broker's operator listener (default $"+operatorEnv+", or "+operatorDefault+")")
	f.String("format", "", "how results are written: human or json (as -o)")
	c.AddCommand(adminCluster(), adminNode(), adminGateway(), adminDomain(), adminSession(), adminPartition(), adminTenant())
	return c
}

// request is a command for a broker.
type request struct {
	method, path string
	args         url.Values
}

// ask has a broker carry out r and returns what it said, as it said it and read. The
// error is the broker's, or Unavailable.
func (r request) ask(cmd *cobra.Command) (body []byte, all []operate.Element, err error) {
	base, err := operatorURL(cmd, operatorDefault)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, base+operate.Prefix+"/"+r.path+"?"+r.args.Encode(), nil)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "--operator: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, errs.New(errs.Unavailable, "expected a broker's operator listener at %s (--operator or $%s): %w", base, operatorEnv, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20)); err != nil {
		return nil, nil, errs.New(errs.Unavailable, "%s: %w", base, err)
	}
	if all, err = operate.Read(body); err != nil {
		return nil, nil, errs.New(errs.Unavailable, "%s: %w; is it that of a broker?", base, err)
	}
	return body, all, operate.Err(resp.StatusCode, all)
}

// show carries r out and writes what comes.
func (r request) show(cmd *cobra.Command) error {
	asJSON, err := adminJSON(cmd)
	if err != nil {
		return err
	}
	body, all, err := r.ask(cmd)
	if err != nil {
		return err
	}
	if asJSON {
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		_, err := cmd.OutOrStdout().Write(body)
		return err
	}
	return writeElements(cmd.OutOrStdout(), all)
}

// adminJSON reports whether JSON is wanted, by --format or by -o. The error is Invalid.
func adminJSON(cmd *cobra.Command) (bool, error) {
	switch format, err := cmd.Flags().GetString("format"); {
	case err != nil:
		return false, err
	case format == "":
		return JSON(cmd)
	case format == "human" || format == "json":
		return format == "json", nil
	default:
		return false, errs.New(errs.Invalid, "--format: expected human or json, found %q", format)
	}
}

// writeElements writes an answer for people.
func writeElements(w io.Writer, all []operate.Element) error {
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		switch e.Type {
		case operate.TypeTable:
			if err := writeTable(w, e.Table); err != nil {
				return err
			}
		default:
			fmt.Fprintln(w, e.Text)
		}
	}
	return nil
}

func writeTable(w io.Writer, rows []operate.Row) error {
	if len(rows) == 0 {
		fmt.Fprintln(w, "(none)")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cell func(operate.Cell) string) func(operate.Row) {
		return func(r operate.Row) {
			words := make([]string, 0, len(r))
			for _, c := range r {
				words = append(words, strings.ReplaceAll(cell(c), "\t", " "))
			}
			fmt.Fprintln(t, strings.TrimRight(strings.Join(words, "\t"), "\t"))
		}
	}
	line(func(c operate.Cell) string { return c.Name })(rows[0])
	for _, r := range rows {
		line(func(c operate.Cell) string { return operate.String(c.Value) })(r)
	}
	return t.Flush()
}

// arguments takes arguments of the form name=value, which must be among names.
func arguments(args []string, names ...string) (url.Values, error) {
	out := url.Values{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !ok || !known {
			return nil, errs.New(errs.Invalid, "expected %s, found %q", strings.Join(names, "=, ")+"=", a)
		}
		out.Set(name, value)
	}
	return out, nil
}

// nodeArgument is the broker that --node or node= names. The error is Invalid.
func nodeArgument(cmd *cobra.Command, args []string) (url.Values, error) {
	out, err := arguments(args, "node")
	if err != nil {
		return nil, err
	}
	if name, _ := cmd.Flags().GetString("node"); name != "" {
		out.Set("node", name)
	}
	if out.Get("node") == "" {
		return nil, errs.New(errs.Invalid, "expected --node and the name of a broker")
	}
	return out, nil
}

// shows is a command that asks one thing and writes the answer.
func shows(use, short, path string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return request{http.MethodGet, path, url.Values{}}.show(cmd)
		},
	}
}

func adminNode() *cobra.Command {
	status := &cobra.Command{
		Use: "status [--node NAME]", Short: "show the figures of all brokers, or of one",
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := arguments(args, "node")
			if err != nil {
				return err
			}
			if name, _ := cmd.Flags().GetString("node"); name != "" {
				values.Set("node", name)
			}
			return request{http.MethodGet, "node/status", values}.show(cmd)
		},
	}
	status.Flags().String("node", "", "the broker; all without it")
	c := &cobra.Command{Use: "node", Short: "look at brokers"}
	c.AddCommand(status)
	return c
}

func adminSession() *cobra.Command {
	show := &cobra.Command{
		Use:   "show [--FIELD[=VALUE] ...] [--limit N]",
		Short: "list sessions of all brokers",
		Long: "List sessions of all brokers. --FIELD shows a column, --FIELD=VALUE takes only the sessions that have the value, and\n" +
			"--FIELD=~EXPR those that match a regular expression. With topic, qos, rap or no_local there is a row for each\n" +
			"subscription. The tenant is the field mountpoint. The fields:\n\n  " + strings.Join(operate.SessionFields(), ", "),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			values := url.Values{}
			for _, name := range operate.SessionFields() {
				if f := cmd.Flags().Lookup(name); f.Changed {
					values.Set(name, strings.TrimPrefix(f.Value.String(), chosen))
				}
			}
			limit, err := cmd.Flags().GetInt("limit")
			if err != nil {
				return err
			}
			values.Set("limit", fmt.Sprint(limit))
			return request{http.MethodGet, "session/show", values}.show(cmd)
		},
	}
	for _, name := range operate.SessionFields() {
		show.Flags().String(name, "", "")
		f := show.Flags().Lookup(name)
		f.NoOptDefVal, f.Hidden = chosen, true
	}
	show.Flags().Int("limit", 100, fmt.Sprintf("rows of each broker, 1 to %d", operate.MostRows))
	c := &cobra.Command{Use: "session", Short: "look at sessions"}
	c.AddCommand(show)
	return c
}

// chosen is the value of a field's flag that has none.
const chosen = "\x00"

func adminPartition() *cobra.Command {
	show := &cobra.Command{
		Use:   "show [ID]",
		Short: "list the partitions, or show one and its copies",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := url.Values{}
			if len(args) > 0 {
				values.Set("partition", strings.TrimPrefix(args[0], "partition="))
			}
			if state, _ := cmd.Flags().GetString("state"); state != "" {
				values.Set("state", state)
			}
			return request{http.MethodGet, "partition/show", values}.show(cmd)
		},
	}
	show.Flags().String("state", "", "only those in this state: "+strings.Join(operate.States(), ", "))
	abandon := &cobra.Command{
		Use:   "abandon ID --yes",
		Short: "give up what nobody can serve of a partition, so that it goes on without it",
		Long: "Give up what nobody can serve of a partition, so that it goes on without it. It is for a partition whose replicas in\n" +
			"sync are all lost for ever: what only they had is lost, acknowledged messages too. The newest copy that is left goes on,\n" +
			"or an empty one. A broker that comes back later with what was given up throws it away.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := url.Values{"partition": {strings.TrimPrefix(args[0], "partition=")}}
			if yes, _ := cmd.Flags().GetBool("yes"); yes {
				values.Set("yes", "true")
			}
			return request{http.MethodPost, "partition/abandon", values}.show(cmd)
		},
	}
	abandon.Flags().Bool("yes", false, "it is meant")
	label := &cobra.Command{
		Use:   "label LIST LABEL [--replicas N]",
		Short: "have partitions be held by brokers that accept a label",
		Long: "Have partitions, such as 0-3,7, be held by brokers that accept a label (broker.cluster.labels). They move there by\n" +
			"themselves, a few at a time, with the sessions and connections in them. The label shared is that of partitions of which\n" +
			"nobody has said one. With --replicas it is also said how many brokers hold each; without, that stays.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := url.Values{"partitions": {args[0]}, "label": {args[1]}}
			if f := cmd.Flags().Lookup("replicas"); f.Changed {
				values.Set("replicas", f.Value.String())
			}
			return request{http.MethodPost, "partition/label", values}.show(cmd)
		},
	}
	label.Flags().Int("replicas", 0, "brokers that hold each, 1 to 5")
	c := &cobra.Command{Use: "partition", Short: "look at partitions, say who holds them, and give them up"}
	c.AddCommand(show, label, abandon)
	return c
}

func adminTenant() *cobra.Command {
	show := &cobra.Command{
		Use: "show [TENANT]", Short: "list where tenants live that have partitions of their own", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := url.Values{}
			if purged, _ := cmd.Flags().GetBool("purged"); purged {
				values.Set("purged", "true")
			}
			if len(args) > 0 {
				values.Set("tenant", args[0])
			}
			return request{http.MethodGet, "tenant/show", values}.show(cmd)
		},
	}
	show.Flags().Bool("purged", false, "those too that were purged, of which a record stays")
	place := &cobra.Command{
		Use:   "place TENANT --partitions LIST | --dedicated LABEL | --shared | --grow N",
		Short: "say in which partitions a tenant lives",
		Long: "Say in which partitions a tenant lives: in those of a list, in all that have a label (partition label), where its plan has\n" +
			"it, or in as many as a plan would give it. What it has goes there: its clients keep their connections and wait meanwhile, all of\n" +
			"them. It is refused while a broker is away, while a partition of it is not served, and if it has more than can be handed over while\n" +
			"clients wait. A tenant with partitions of its own is moved to other brokers with partition label, without that bound.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := url.Values{"tenant": {args[0]}}
			for _, name := range []string{"partitions", "dedicated"} {
				if v, _ := cmd.Flags().GetString(name); v != "" {
					values.Set(name, v)
				}
			}
			if n, _ := cmd.Flags().GetInt("grow"); cmd.Flags().Changed("grow") {
				values.Set("grow", strconv.Itoa(n))
			}
			if shared, _ := cmd.Flags().GetBool("shared"); shared {
				values.Set("shared", "true")
			}
			return request{http.MethodPost, "tenant/place", values}.show(cmd)
		},
	}
	place.Flags().String("partitions", "", "these partitions, such as 60-63")
	place.Flags().String("dedicated", "", "all partitions with this label")
	place.Flags().Bool("shared", false, "as its plan has it")
	place.Flags().Int("grow", 0, "as a plan of so many partitions has it; of more it keeps those that it has")
	c := &cobra.Command{Use: "tenant", Short: "look at where tenants live, say it, and give them what owners may not take"}
	c.AddCommand(show, place)
	c.AddCommand(adminGives()...)
	return c
}
