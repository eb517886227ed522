// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Site is a running Manor, as who measures changes of tenants reaches it.
type Site struct {
	// API is the base URL of the API, such as http://127.0.0.1:8080.
	API string
	// Gateways are those at which each change has to arrive.
	Gateways []SiteGateway
	// Domain is what the host names of tenants are below.
	Domain string
}

// SiteGateway is where one gateway listens, as host:port.
type SiteGateway struct{ MQTT, MQTTS string }

// siteTenant is a tenant with the key of its organization.
type siteTenant struct {
	id, key string
	login   login
}

// signUp makes a tenant at the API whose base URL that is.
func signUp(ctx context.Context, api, tenant string) (*siteTenant, error) {
	body := map[string]string{"organization": tenant, "email": tenant + "@bench.example", "password": "correct-horse-battery", "tenant": tenant}
	var made struct {
		APIKey struct {
			Secret string `json:"secret"`
		} `json:"api_key"`
		Credential struct {
			Username string `json:"username_plain"`
			Password string `json:"password"`
		} `json:"credential"`
	}
	if err := call(ctx, http.MethodPost, strings.TrimRight(api, "/")+"/v1/signup", "", body, &made); err != nil {
		return nil, fmt.Errorf("sign up %s: %w", tenant, err)
	}
	if made.Credential.Password == "" {
		return nil, fmt.Errorf("sign up %s: expected a credential with a password, found none", tenant)
	}
	return &siteTenant{tenant, made.APIKey.Secret, login{made.Credential.Username, made.Credential.Password}}, nil
}

// call asks an API, which must say yes; out may be nil.
func call(ctx context.Context, method, url, key string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return errs.New(errs.Unavailable, "%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, url, resp.Status, err)
	}
	return nil
}

// call asks the API about something of the tenant.
func (t *siteTenant) call(ctx context.Context, s *Site, method, path string, in, out any) error {
	return call(ctx, method, strings.TrimRight(s.API, "/")+"/v1/tenants/"+url.PathEscape(t.id)+path, t.key, in, out)
}
