// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// signUpsAtOnce are few: the API hashes a password for each, on one processor.
const signUpsAtOnce = 4

// signUps makes n tenants at the API of a Manor, for the clients to take in turn.
func signUps(ctx context.Context, api string, n int) ([]login, error) {
	url := strings.TrimRight(api, "/") + "/v1/signup"
	prefix := fmt.Sprintf("bench-%x", time.Now().UnixNano())
	logins := make([]login, n)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(signUpsAtOnce)
	for i := range n {
		all.Go(func() (err error) {
			logins[i], err = signUp(ctx, url, fmt.Sprintf("%s-%d", prefix, i))
			return err
		})
	}
	return logins, all.Wait()
}

func signUp(ctx context.Context, url, tenant string) (login, error) {
	body, err := json.Marshal(map[string]string{"organization": tenant, "email": tenant + "@bench.example", "password": "correct-horse-battery", "tenant": tenant})
	if err != nil {
		return login{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return login{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return login{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return login{}, err
	}
	var made struct {
		Credential struct {
			Username string `json:"username_plain"`
			Password string `json:"password"`
		} `json:"credential"`
	}
	if err := json.Unmarshal(text, &made); err != nil || made.Credential.Password == "" {
		return login{}, fmt.Errorf("sign up %s at %s: %s: %s", tenant, url, resp.Status, text)
	}
	return login{made.Credential.Username, made.Credential.Password}, nil
}
