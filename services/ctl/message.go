// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

func publish() *cobra.Command {
	var file string
	var qos int
	var retain bool
	var expiry uint32
	c := ofAPI(&cobra.Command{
		Use:   "publish TENANT TOPIC [MESSAGE]",
		Short: "publish a message into a tenant; without one its payload is empty, which with --retain removes what is retained",
		Args:  cobra.RangeArgs(2, 3),
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if qos < 0 || qos > 2 {
			return errs.New(errs.Invalid, "expected --qos of 0, 1 or 2, found %d", qos)
		}
		m := client.Message{Topic: args[1], QoS: qos, Retain: retain}
		if cmd.Flags().Changed("expiry") {
			m.Properties = &client.MessageProperties{MessageExpiryInterval: &expiry}
		}
		switch {
		case len(args) == 3 && file != "":
			return errs.New(errs.Invalid, "expected a message or --file, found both")
		case len(args) == 3:
			m.Payload = &args[2]
		case file != "":
			b, err := payloadOf(cmd, file)
			if err != nil {
				return err
			}
			text := base64.StdEncoding.EncodeToString(b)
			m.PayloadBase64 = &text
		}
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		done, err := c.Publish(cmd.Context(), args[0], m)
		if err != nil {
			return err
		}
		return write(cmd, done, "published: "+done.Reason)
	}
	f := c.Flags()
	f.StringVar(&file, "file", "", "file with the payload; - is standard input")
	f.IntVar(&qos, "qos", 1, "0, 1 or 2; the command waits for the acknowledgement of 1 and 2")
	f.BoolVar(&retain, "retain", false, "retain the message")
	f.Uint32Var(&expiry, "expiry", 0, "seconds after which the message is not sent any more; without the flag never")
	return c
}

// payloadOf reads a payload, of up to what the API takes.
func payloadOf(cmd *cobra.Command, file string) ([]byte, error) {
	if file == "-" {
		b, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, errs.New(errs.Invalid, "standard input: %w", err)
		}
		return b, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "--file: %w", err)
	}
	return b, nil
}

func retained() *cobra.Command {
	list := &cobra.Command{Use: "list TENANT", Short: "list retained messages in order of their topics", Args: cobra.ExactArgs(1)}
	filter := list.Flags().String("filter", "#", "a topic filter")
	most := limited(list)
	list.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		all, err := upTo(cmd, *most, func(ctx context.Context, o ...client.Option) (*client.Page[client.Retained], error) {
			return c.Retained(ctx, args[0], append(o, client.Query("filter", *filter))...)
		})
		if err != nil {
			return err
		}
		return writeList(cmd, all, "TOPIC QOS STORED PAYLOAD", func(r client.Retained) []any {
			return []any{r.Topic, r.QoS, day(r.StoredAt), payloadText(r.Payload, r.PayloadBase64)}
		})
	}
	remove := &cobra.Command{
		Use:   "delete TENANT TOPIC",
		Short: "remove the retained message of a topic; subscribers get a message without payload, as MQTT has it",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if _, err := c.Publish(cmd.Context(), args[0], client.Message{Topic: args[1], QoS: 1, Retain: true}); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, "nothing is retained for "+args[1])
		},
	}
	c := ofAPI(&cobra.Command{Use: "retained", Short: "the retained messages of a tenant"})
	c.AddCommand(list, remove)
	return c
}

// payloadText is a payload in a line, the beginning of a long one.
func payloadText(text *string, coded string) string {
	const most = 80
	s := "base64 " + coded
	if text != nil {
		s = fmt.Sprintf("%q", *text)
	}
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return s
}

func topics() *cobra.Command {
	match := &cobra.Command{
		Use:   "match TENANT TOPIC",
		Short: "list who gets what is published to a topic: clients with their subscriptions that match, a line each, and what is retained",
		Args:  cobra.ExactArgs(2),
	}
	most := limited(match)
	match.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		var kept *client.RetainedOfATopic
		all, err := upTo(cmd, *most, func(ctx context.Context, o ...client.Option) (*client.Page[client.MatchedClient], error) {
			m, err := c.MatchTopic(ctx, args[0], args[1], o...)
			if err != nil {
				return nil, err
			}
			if m.Retained != nil {
				kept = m.Retained
			}
			return &client.Page[client.MatchedClient]{Items: m.Items, Next: m.Next}, nil
		})
		if err != nil {
			return err
		}
		return write(cmd, map[string]any{"items": all, "retained": kept}, matchText(all, kept))
	}
	c := ofAPI(&cobra.Command{Use: "topic", Short: "where messages go"})
	c.AddCommand(match)
	return c
}

func matchText(all []client.MatchedClient, kept *client.RetainedOfATopic) string {
	var b strings.Builder
	for _, m := range all {
		away := ""
		if !m.Connected {
			away = ", not connected"
		}
		for _, s := range m.Subscriptions {
			fmt.Fprintf(&b, "%s by %s at QoS %d%s\n", m.ClientID, s.Filter, s.QoS, away)
		}
	}
	if len(all) == 0 {
		b.WriteString("no subscription matches\n")
	}
	if kept == nil {
		b.WriteString("nothing is retained")
	} else {
		fmt.Fprintf(&b, "a message of %d bytes is retained since %s", kept.Size, day(kept.StoredAt))
	}
	return b.String()
}

func usage() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "usage", Short: "what a tenant uses"})
	c.AddCommand(&cobra.Command{
		Use:   "show TENANT [METER…]",
		Short: "show what a tenant uses now, by meter; all meters if none is named",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			var all []client.UsageMeter
			for _, meter := range withDefault(args[1:], "") {
				page, err := c.Usage(cmd.Context(), args[0], client.Query("meter", meter))
				if err != nil {
					return err
				}
				all = append(all, page.Items...)
			}
			return writeList(cmd, all, "METER NOW", func(m client.UsageMeter) []any {
				if len(m.Points) == 0 {
					return []any{m.Meter, "-"}
				}
				return []any{m.Meter, m.Points[len(m.Points)-1].Value}
			})
		},
	}, &cobra.Command{
		Use:   "metrics TENANT",
		Short: "write limits and usage of a tenant's quotas in the text format of Prometheus, which can scrape them itself (docs/quotas.md)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			text, err := c.TenantMetrics(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return write(cmd, map[string]string{"metrics": string(text)}, strings.TrimRight(string(text), "\n"))
		},
	})
	return c
}

// withDefault is list, or the default alone if it is empty.
func withDefault(list []string, one string) []string {
	if len(list) == 0 {
		return []string{one}
	}
	return list
}
