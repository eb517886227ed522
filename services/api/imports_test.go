// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/store"
)

// ended polls an operation until it is not running any more.
func (w *world) ended(location string) map[string]any {
	w.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if v := w.want(w.do("GET", location, w.owner, ""), 200, ""); v["state"] != "running" {
			return v
		}
	}
	w.t.Fatal("the operation does not end")
	return nil
}

const importTo = "/v1/tenants/acme/credentials:import"

func TestImport(t *testing.T) {
	w := newWorld(t)
	secret, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512([]byte("of-vernemq" + "salt-salt-sa"))
	vernemq := "$6$" + base64.StdEncoding.EncodeToString([]byte("salt-salt-sa")) + "$" + base64.StdEncoding.EncodeToString(sum[:])
	body := fmt.Sprintf(`{"items":[{"username":"a","hash":"%s"},{"username":"b","password":"hunter2-device"},{"username":"default","hash":"%s"},{"username":"v","hash":"%s"}]}`, hash, hash, vernemq)
	r := w.do("POST", importTo, w.owner, body, "Idempotency-Key", "k")
	v := w.want(r, 202, "")
	if v["state"] != "running" || v["total"] != 4.0 || r.header.Get("Location") != "/v1/tenants/acme/operations/"+v["id"].(string) {
		t.Errorf("got %v %v", v, r.header)
	}
	// The one that is there stays as it was.
	got := w.ended(r.header.Get("Location"))
	if got["state"] != "done" || got["made"] != 3.0 || got["skipped"] != 1.0 || got["failed"] != 0.0 {
		t.Errorf("got %v", got)
	}
	for name, text := range map[string]string{"a": secret, "b": "hunter2-device", "v": "of-vernemq"} {
		c, err := w.store.Credential(t.Context(), "acme", name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := password.NewVerifier(0)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := v.Verify(t.Context(), "acme", name, 1, c.Hash, []byte(text)); !ok || err != nil {
			t.Errorf("%s: the password is not that of %q: %v", name, c.Hash, err)
		}
	}
	for _, bucket := range []string{"audit", "operations", "credentials", "replies"} {
		if all := strings.Join(w.bucket(bucket), ""); strings.Contains(all, "hunter2-device") || strings.Contains(all, vernemq) || bucket == "audit" && strings.Contains(all, hash) {
			t.Errorf("a secret is in bucket %s", bucket)
		}
	}
	for name, items := range map[string]string{
		"neither":  `{"username":"x"}`,
		"both":     fmt.Sprintf(`{"username":"x","hash":"%s","password":"hunter2-device"}`, hash),
		"twice":    fmt.Sprintf(`{"username":"x","hash":"%s"},{"username":"x","hash":"%s"}`, hash, hash),
		"crypt":    `{"username":"x","hash":"$6$rounds=5000$salt$x"}`,
		"hash":     `{"username":"x","hash":"$md5$x"}`,
		"username": fmt.Sprintf(`{"username":"","hash":"%s"}`, hash),
		"password": `{"username":"x","password":"short"}`,
	} {
		v := w.want(w.do("POST", importTo, w.owner, `{"items":[{"username":"good","password":"hunter2-device"},`+items+`]}`), 400, "import_invalid")
		if !strings.Contains(v["detail"].(string), "items[") {
			t.Errorf("%s: it does not say which: %v", name, v)
		}
	}
	if _, err := w.store.Credential(t.Context(), "acme", "good"); !errs.Is(err, errs.NotFound) {
		t.Errorf("some of a bad import is made: %v", err)
	}
	w.want(w.do("POST", importTo, w.owner, `{"items":[]}`), 400, "request_invalid")
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"credentials":3}`), 200, "")
	w.want(w.do("POST", importTo, w.owner, `{"items":[{"username":"x","password":"hunter2-device"}]}`), 409, "quota_exceeded")
	w.want(w.do("GET", "/v1/tenants/acme/operations/op_none", w.owner, ""), 404, "operation_not_found")
}

// TestImport_Many is the size that one call may have.
func TestImport_Many(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 100,000 credentials")
	}
	w := newWorld(t)
	_, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`{"items":[`)
	for i := range 100_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"username":"device-%06d","hash":"%s"}`, i, hash)
	}
	b.WriteString(`]}`)
	begin := time.Now()
	r := w.do("POST", importTo, w.owner, b.String())
	w.want(r, 202, "")
	answered := time.Since(begin)
	if got := w.ended(r.header.Get("Location")); got["made"] != 100_000.0 {
		t.Errorf("got %v", got)
	}
	t.Logf("%d bytes, answered after %v, done after %v", b.Len(), answered, time.Since(begin))
	if n, err := w.store.CountCredentials(t.Context(), "acme"); n != 100_001 || err != nil {
		t.Errorf("%d credentials, %v", n, err)
	}
}

// Strangers have bodies as small as everywhere: only who may import has large ones.
func TestImport_StrangersHaveNoLargeBodies(t *testing.T) {
	w := newWorld(t)
	large := `{"items":[{"username":"x","password":"` + strings.Repeat("a", 17<<20) + `"}]}`
	for _, key := range []string{"", "mk_wrong"} {
		if r := w.do("POST", importTo, key, large, "Idempotency-Key", "a"); r.status != 401 {
			t.Errorf("key %q: status %d, expected 401", key, r.status)
		}
	}
	if r := w.do("POST", importTo, w.owner, large); r.status == 413 || r.status == 404 {
		t.Errorf("status %d: who may import has large bodies", r.status)
	}
}

// waiting is a hasher that waits for the end of its context.
type waiting struct{ api.Hasher }

func (waiting) Hash(ctx context.Context, _, _ string) (string, error) {
	<-ctx.Done()
	return "", errs.New(errs.Unavailable, "stopped")
}

// TestImport_Interrupted ends the process in the middle of an import.
func TestImport_Interrupted(t *testing.T) {
	w := newWorld(t)
	s, err := api.New(func() api.Config {
		c := w.cfg
		c.Hasher = waiting{c.Hasher}
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	whole := w.s
	w.s = s
	var locations []string
	for i := range 2 {
		r := w.do("POST", importTo, w.owner, fmt.Sprintf(`{"items":[{"username":"slow-%d","password":"hunter2-device"}]}`, i))
		w.want(r, 202, "")
		locations = append(locations, r.header.Get("Location"))
	}
	w.want(w.do("POST", importTo, w.owner, `{"items":[{"username":"more","password":"hunter2-device"}]}`), 503, "imports_busy")
	// However many organizations have some, and however long theirs take, one that has none
	// finds a turn while two others have theirs.
	gamma, err := w.store.SignUp(t.Context(), store.SignUp{
		Organization: "Gamma", Email: "ops@gamma.example", PasswordHash: "none", Tenant: "gamma", Plan: "dev", Username: "default", CredentialHash: "none",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant, key, code string
		status            int
	}{{"beta", w.beta, "", 202}, {"beta", w.beta, "imports_busy", 503}, {"gamma", gamma.Secret, "", 202}} {
		r := w.do("POST", "/v1/tenants/"+c.tenant+"/credentials:import", c.key, `{"items":[{"username":"slow","password":"hunter2-device"}]}`)
		w.want(r, c.status, c.code)
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	w.s = whole
	for _, l := range locations {
		if v := w.want(w.do("GET", l, w.owner, ""), 200, ""); v["state"] != "interrupted" || v["made"] != 0.0 {
			t.Errorf("got %v", v)
		}
	}
	// A process that is killed says nothing; after a minute that says enough.
	o, err := w.store.StartOperation(t.Context(), "acme", "import-credentials", 1)
	if err != nil {
		t.Fatal(err)
	}
	later, err := store.New(t.Context(), store.Config{Bus: w.bus, Region: "local", Now: func() time.Time { return time.Now().Add(2 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := later.Operation(t.Context(), "acme", o.ID); err != nil || got.State != store.OperationInterrupted {
		t.Errorf("got %+v, %v", got, err)
	}
}
