// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
)

// operatorURL is the operator listener that --operator or the environment names, or else
// the default, without a slash at its end.
func operatorURL(cmd *cobra.Command, otherwise string) (string, error) {
	base, err := cmd.Flags().GetString("operator")
	if err != nil {
		return "", err
	}
	if base = cmp.Or(base, os.Getenv(operatorEnv), otherwise); !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return strings.TrimRight(base, "/"), nil
}

// fetch gets what is at an address, up to 1 MiB of it.
func fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, errs.New(errs.Unavailable, "%s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}
