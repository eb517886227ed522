// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/operate"
)

// gatewayDefault is where a gateway's operator listener is by default.
const gatewayDefault = "http://127.0.0.1:8889"

// adminGateway is manor admin gateway, which VerneMQ does not have. Each gateway answers
// for itself: it keeps nothing that another could tell.
func adminGateway() *cobra.Command {
	status := &cobra.Command{
		Use:   "status [--operator URL]",
		Short: "show how a gateway is, and how old what it knows of tenants and credentials is",
		Long: "Show how a gateway is, how it reaches the control plane, how old what it knows of tenants and credentials is, and until\n" +
			"when it lets known clients in without (docs/control-plane.md). The gateway itself is asked, at its operator listener:\n" +
			"--operator URL, $" + operatorEnv + ", or " + gatewayDefault + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return gatewayStatus(cmd) },
	}
	c := &cobra.Command{Use: "gateway", Short: "look at a gateway"}
	c.AddCommand(status)
	return c
}

func gatewayStatus(cmd *cobra.Command) error {
	asJSON, err := adminJSON(cmd)
	if err != nil {
		return err
	}
	base, err := operatorURL(cmd, gatewayDefault)
	if err != nil {
		return err
	}
	body, err := fetch(cmd.Context(), base+"/process.json")
	if err != nil {
		return errs.New(errs.Unavailable, "expected a gateway's operator listener at %s (--operator or $%s): %w", base, operatorEnv, err)
	}
	var s struct {
		Name, Role, Version string
		Health              struct {
			Status  string
			Reasons []string
		}
		Details struct {
			ControlPlane json.RawMessage `json:"control_plane"`
		}
	}
	if err := json.Unmarshal(body, &s); err != nil || len(s.Details.ControlPlane) == 0 {
		return errs.New(errs.Unavailable, "expected a gateway's operator listener at %s (--operator or $%s): it is that of something else", base, operatorEnv)
	}
	if asJSON {
		_, err := cmd.OutOrStdout().Write(body)
		return err
	}
	rows := []operate.Row{}
	add := func(name string, value any) {
		rows = append(rows, operate.Row{{Name: "Figure", Value: name}, {Name: s.Name, Value: value}})
	}
	add("role", s.Role)
	add("version", s.Version)
	add("health", s.Health.Status)
	if err := members(s.Details.ControlPlane, func(name string, value any) { add("control_plane."+name, value) }); err != nil {
		return errs.New(errs.Unavailable, "%s: %w", base, err)
	}
	all := []operate.Element{operate.Table(rows)}
	for _, r := range s.Health.Reasons {
		all = append(all, operate.Text(r))
	}
	return writeElements(cmd.OutOrStdout(), all)
}

// members calls f with the members of a JSON object, in their order.
func members(object []byte, f func(name string, value any)) error {
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return err
		}
		if text, ok := name.(string); ok {
			f(text, value)
		}
	}
	return nil
}
