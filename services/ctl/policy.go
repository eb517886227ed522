// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// readPolicy reads the Rego of files, and of all files that end with .rego in
// folders.
func readPolicy(paths []string) (map[string]string, error) {
	files := map[string]string{}
	for _, path := range paths {
		all := []string{path}
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			if all, err = filepath.Glob(filepath.Join(path, "*.rego")); err != nil || len(all) == 0 {
				return nil, errs.New(errs.Invalid, "%s: expected files that end with .rego in the folder", path)
			}
		}
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				return nil, errs.New(errs.Invalid, "%w", err)
			}
			base := filepath.Base(name)
			if _, ok := files[base]; ok {
				return nil, errs.New(errs.Invalid, "two files are called %s", base)
			}
			files[base] = string(b)
		}
	}
	return files, nil
}

func revision(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, errs.New(errs.Invalid, "expected the number of a revision, found %q", text)
	}
	return n, nil
}

// apiCommand is a command that calls the API with its arguments.
func apiCommand(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, c *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		return run(cmd, c, args)
	}}
}

func policies() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "policy", Short: "what a tenant's clients may do, as Rego"})
	c.AddCommand(pushPolicy(), importPolicy(), listPolicies(), showPolicy(), testPolicy(), explainPolicy(), simulatePolicy(), rollbackPolicy(), shadowPolicy(), resetPolicy())
	return c
}

func pushPolicy() *cobra.Command {
	var in client.NewPolicy
	var dry bool
	c := apiCommand("push TENANT FILE|FOLDER...", "make a revision, which holds everywhere within 2 s; one that does not compile, or whose tests fail, is refused with the lines",
		cobra.MinimumNArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) (err error) {
			if in.Files, err = readPolicy(args[1:]); err != nil {
				return err
			}
			var o []client.Option
			if dry {
				o = append(o, client.Query("dry_run", "true"))
			}
			made, err := c.PutPolicy(cmd.Context(), args[0], in, o...)
			if err != nil {
				return faults(cmd, err)
			}
			human := fmt.Sprintf("revision %d is %s: %d grants in %d classes (%s); %d tests passed", made.Revision, made.State, made.Grants, len(made.Classes), strings.Join(made.Classes, ", "), made.Tests.Passed)
			if dry {
				human = "the policy is good: " + strings.SplitN(human, ": ", 2)[1]
			}
			return write(cmd, made, human)
		})
	f := c.Flags()
	f.StringVar(&in.Description, "description", "", "what the revision is for")
	f.StringVar(&in.OnRevoke, "on-revoke", "", "what becomes of connections that hold subscriptions which are not granted any more: unsubscribe or disconnect (default: as before, at first unsubscribe)")
	f.BoolVar(&in.Shadow, "shadow", false, "do not make it live, but see what it would decide (manor policy shadow)")
	f.BoolVar(&dry, "dry-run", false, "check everything, change nothing")
	return c
}

// faults writes all that is wrong with a policy, one to a line, to standard error.
func faults(cmd *cobra.Command, err error) error {
	p, ok := errors.AsType[*client.Problem](err)
	if !ok || p.Code != "policy_invalid" {
		return err
	}
	for i, f := range p.Errors {
		if !slices.Contains(p.Errors[:i], f) && i > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", f.Location, f.Message)
		}
	}
	return err
}

func listPolicies() *cobra.Command {
	return apiCommand("list TENANT", "list the revisions that are kept", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		all, err := c.Policies(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeList(cmd, all.Items, "REVISION STATE CREATED GRANTS CLASSES DESCRIPTION", func(p client.PolicyRevision) []any {
			return []any{p.Revision, p.State, day(&p.CreatedAt), p.Grants, strings.Join(p.Classes, ","), p.Description}
		})
	})
}

func showPolicy() *cobra.Command {
	return apiCommand("show TENANT [REVISION]", "write the text of a revision, by default the live one", cobra.RangeArgs(1, 2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		var n uint64
		if len(args) == 2 {
			var err error
			if n, err = revision(args[1]); err != nil {
				return err
			}
		} else {
			all, err := c.Policies(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if n = all.Live; n == 0 {
				return errs.New(errs.NotFound, "the tenant %s has no policy of its own: the default allows everything in it", args[0])
			}
		}
		p, err := c.Policy(cmd.Context(), args[0], n)
		if err != nil {
			return err
		}
		var b strings.Builder
		for name, text := range p.Files {
			fmt.Fprintf(&b, "# %s, revision %d\n%s\n", name, p.Revision, text)
		}
		return write(cmd, p, strings.TrimRight(b.String(), "\n"))
	})
}

func testPolicy() *cobra.Command {
	return apiCommand("test TENANT FILE|FOLDER...", "run the tests of a policy, with coverage, without keeping it", cobra.MinimumNArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		files, err := readPolicy(args[1:])
		if err != nil {
			return err
		}
		r, err := c.TestPolicy(cmd.Context(), args[0], client.PolicyFiles{Files: files})
		if err != nil {
			return faults(cmd, err)
		}
		var b strings.Builder
		for _, t := range r.Tests {
			fmt.Fprintf(&b, "%-5s %s (%s:%d)", t.Outcome, t.Name, t.File, t.Line)
			if t.Message != "" {
				b.WriteString(": " + t.Message)
			}
			b.WriteByte('\n')
		}
		for _, f := range r.Files {
			fmt.Fprintf(&b, "%s: %.0f%% covered", f.File, f.Percent)
			for i, l := range f.NotCovered {
				fmt.Fprintf(&b, "%s%d-%d", map[bool]string{true: "; not lines ", false: ", "}[i == 0], l.From, l.To)
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d passed, %d failed, %.0f%% covered", r.Passed, r.Failed, r.Coverage)
		if err := write(cmd, r, b.String()); err != nil {
			return err
		}
		if r.Failed > 0 {
			return errs.New(errs.Invalid, "%d tests have failed", r.Failed)
		}
		return nil
	})
}

// clientFlags are those that say what client a question is about.
func clientFlags(c *cobra.Command, who *client.PolicyClient, q *client.PolicyQuestion) {
	f := c.Flags()
	f.StringVar(&who.ID, "client", "", "its client id")
	f.StringVar(&who.User, "user", "", "its user name")
	f.StringVar(&who.CN, "cn", "", "the common name of its certificate")
	f.StringVar(&who.IP, "ip", "", "its address, for mqtt.connect")
	f.StringSliceVar(&who.Groups, "group", nil, "a group of the device (may be repeated)")
	f.StringToStringVar(&who.Claims, "claim", nil, "a claim of its token: name=value (may be repeated)")
	f.StringVar(&q.Class, "class", "", "its class (default: what mqtt.connect says)")
	f.IntVar(&q.QoS, "qos", 0, "the QoS")
	f.BoolVar(&q.Retain, "retain", false, "the message is retained")
}

func explainPolicy() *cobra.Command {
	var in client.ExplainPolicy
	c := apiCommand("explain TENANT publish|subscribe TOPIC | explain TENANT DECISION", "say what the policy decides, and which entry and rule does", cobra.RangeArgs(2, 3), func(cmd *cobra.Command, c *client.Client, args []string) error {
		asked := args[1] == "publish" || args[1] == "subscribe"
		switch {
		case asked && len(args) == 3:
			in.Action, in.Topic = args[1], args[2]
		case asked:
			return errs.New(errs.Invalid, "expected a topic behind %s, such as manor policy explain %s %s sensors/1", args[1], args[0], args[1])
		case len(args) == 3:
			return errs.New(errs.Invalid, "expected publish or subscribe before the topic, found %q", args[1])
		default:
			in.Decision = args[1]
		}
		a, err := c.ExplainPolicy(cmd.Context(), args[0], in)
		if err != nil {
			return err
		}
		return write(cmd, a, explained(a))
	})
	clientFlags(c, &in.Client, &in.PolicyQuestion)
	c.Flags().Uint64Var(&in.Revision, "revision", 0, "a revision that is kept (default: the one that decided, or the live one)")
	return c
}

func explained(a *client.PolicyAnswer) string {
	var b strings.Builder
	if r := a.Recorded; r != nil {
		fmt.Fprintf(&b, "%s at %s: client %q, user %q, %s %q: %s under revision %d\n", r.ID, r.At.UTC().Format("2006-01-02 15:04:05"), r.ClientID, r.Username, r.Action, r.Topic, permitted(r.Allowed), r.Revision)
	}
	fmt.Fprintf(&b, "%s under revision %d", permitted(a.Allowed), a.Revision)
	if a.Class != "" {
		fmt.Fprintf(&b, ", class %q", a.Class)
	}
	b.WriteString(": " + a.Why)
	if e := a.Entry; e != nil {
		effect := e.Effect
		if effect == "" {
			effect = "allow"
		}
		of := ""
		if e.User != nil {
			of = fmt.Sprintf(" for the user %q", *e.User)
		}
		fmt.Fprintf(&b, "\n%s: %s %s %s%s, priority %d", e.At, effect, e.Action, e.Filter, of, e.Priority)
	}
	return b.String()
}

func permitted(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

func simulatePolicy() *cobra.Command {
	var in client.SimulatePolicy
	c := apiCommand("simulate TENANT [FILE|FOLDER...]", "hold a policy, or with --revision one that is kept, against what gateways have decided lately", cobra.MinimumNArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) (err error) {
		if len(args) > 1 {
			if in.Files, err = readPolicy(args[1:]); err != nil {
				return err
			}
		}
		r, err := c.SimulatePolicy(cmd.Context(), args[0], in)
		if err != nil {
			return faults(cmd, err)
		}
		return write(cmd, r, diff(&r.PolicyDiff))
	})
	c.Flags().Uint64Var(&in.Revision, "revision", 0, "a revision that is kept, instead of files")
	return c
}

func diff(d *client.PolicyDiff) string {
	var b strings.Builder
	for _, c := range d.Changes {
		if c.Decision != "" {
			b.WriteString(c.Decision + ": ")
		}
		fmt.Fprintf(&b, "client %q, user %q, %s %q at QoS %d: was %s, would be %s: %s\n", c.ClientID, c.Username, c.Action, c.Topic, c.QoS, permitted(c.Was), permitted(c.Would), c.Why)
	}
	fmt.Fprintf(&b, "%d of %d decisions would change", d.Changed, d.Looked)
	return b.String()
}

func rollbackPolicy() *cobra.Command {
	return apiCommand("rollback TENANT REVISION", "make a revision live that is kept", cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		n, err := revision(args[1])
		if err != nil {
			return err
		}
		p, err := c.RollbackPolicy(cmd.Context(), args[0], n)
		if err != nil {
			return err
		}
		return write(cmd, p, fmt.Sprintf("revision %d is live", p.Revision))
	})
}

func shadowPolicy() *cobra.Command {
	var end bool
	c := apiCommand("shadow TENANT", "see what the revision that was pushed with --shadow would have decided otherwise", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		if end {
			if err := c.DeletePolicyShadow(cmd.Context(), args[0]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"ended": args[0]}, "no revision is looked at beside the live one")
		}
		d, err := c.PolicyShadow(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return write(cmd, d, diff(d))
	})
	c.Flags().BoolVar(&end, "end", false, "look at it no more")
	return c
}

func resetPolicy() *cobra.Command {
	return apiCommand("reset TENANT", "go back to the default: everything in the tenant is allowed", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.DeletePolicy(cmd.Context(), args[0]); err != nil {
			return err
		}
		return write(cmd, map[string]string{"reset": args[0]}, "the default holds: everything in the tenant is allowed")
	})
}
