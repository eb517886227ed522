// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
)

// tenancyDefault is where a tenancyd's operator listener is by default.
const tenancyDefault = "http://127.0.0.1:8890"

// adminDomain is manor admin domain, which VerneMQ does not have.
func adminDomain() *cobra.Command {
	release := &cobra.Command{
		Use:   "release FQDN [--operator URL]",
		Short: "take a custom domain from the tenant that has it",
		Long: "Take a custom domain from the tenant that has it: gateways refuse new handshakes for the name within 2 s, its certificate is\n" +
			"forgotten, and whoever shows by the DNS that it is theirs has it next. It is in the audit log of the tenant's organization.\n" +
			"A tenancyd is asked, at its operator listener: --operator URL, $" + operatorEnv + ", or " + tenancyDefault + ".",
		Args: cobra.ExactArgs(1),
		RunE: releaseDomain,
	}
	c := &cobra.Command{Use: "domain", Short: "see to tenants' custom domains"}
	c.AddCommand(release)
	return c
}

func releaseDomain(cmd *cobra.Command, args []string) error {
	var out struct{ FQDN, Tenant string }
	return askTenancy(cmd, http.MethodPost, "/tenancy/v1/domains:release", map[string]string{"fqdn": args[0]}, &out, func() (string, bool) {
		return fmt.Sprintf("%s is free; %s had it", out.FQDN, out.Tenant), out.Tenant != ""
	})
}

// askTenancy has a tenancyd do something at its operator listener, and writes what it answers:
// out takes that, and human says it and whether it is an answer at all.
func askTenancy(cmd *cobra.Command, method, path string, in, out any, human func() (text string, ok bool)) error {
	asJSON, err := adminJSON(cmd)
	if err != nil {
		return err
	}
	base, err := operatorURL(cmd, tenancyDefault)
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(cmd.Context(), method, base+path, bytes.NewReader(body))
	if err != nil {
		return errs.New(errs.Invalid, "--operator: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return errs.New(errs.Unavailable, "expected a tenancyd's operator listener at %s (--operator or $%s): %w", base, operatorEnv, err)
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var problem struct{ Code, Detail string }
	err = errors.Join(err, json.Unmarshal(said, out), json.Unmarshal(said, &problem))
	text, ok := human()
	if err != nil || resp.StatusCode == http.StatusOK && !ok {
		return errs.New(errs.Unavailable, "expected a tenancyd's operator listener at %s (--operator or $%s): it is that of something else", base, operatorEnv)
	}
	if resp.StatusCode != http.StatusOK {
		kind := map[int]errs.Kind{http.StatusBadRequest: errs.Invalid, http.StatusNotFound: errs.NotFound}[resp.StatusCode]
		if kind == errs.Internal {
			kind = errs.Unavailable
		}
		return errs.Coded(kind, problem.Code, "%s", problem.Detail)
	}
	if asJSON {
		_, err := cmd.OutOrStdout().Write(said)
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
