// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// installation notes the secrets of the installation itself, which are the operator's key
// files.
func (w *secretWorld) installation() {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.data, "pki", "*"))
	if err != nil || len(files) == 0 {
		w.Fatalf("expected key files in pki: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		name := filepath.Base(file)
		switch {
		case err != nil: // a folder
		case strings.Contains(string(text), "PRIVATE KEY"):
			w.keyPEM("the key "+name, string(text), "pki/"+name)
		case strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".token"):
			w.known("the installation's "+name, strings.TrimSpace(string(text)), "pki/"+name)
		}
	}
}

// mailed is the code in the newest mail to somebody.
func (w *secretWorld) mailed(to, pattern string) string {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, m := range w.mails.Mails() {
			if m.To == to {
				if code := regexp.MustCompile(pattern).FindString(strings.ReplaceAll(m.Message, "=\r\n", "")); code != "" {
					return code
				}
			}
		}
	}
	w.Fatalf("no mail for %s with %s", to, pattern)
	return ""
}

// people signs up, makes keys and members, and uses what they have.
func (w *secretWorld) people() {
	w.Helper()
	word := w.secret("the password of a sign-up")
	body := map[string]any{"organization": w.mark, "email": w.mark + "@acme.example", "password": word.text, "tenant": w.mark}
	for what, bad := range map[string]string{
		"cut off":       `{"organization":"x","email":"a@b.example","tenant":"cut","password":"` + word.text,
		"of a list":     `{"organization":"x","email":"a@b.example","tenant":"list","password":["` + word.text + `"]}`,
		"misspelt":      `{"organization":"x","email":"a@b.example","tenant":"other","pasword":"` + word.text + `"}`,
		"as the tenant": `{"organization":"x","email":"a@b.example","tenant":{"` + word.text + `":1},"password":"12345678"}`,
	} {
		w.call("a sign-up whose password is "+what, "POST", "/v1/signup", bad, 400, nil)
	}
	w.call("a sign-up with a bad tenant", "POST", "/v1/signup", map[string]any{"organization": "x", "email": "a@b.example", "password": word.text, "tenant": "NO!"}, 400, nil)
	var up struct {
		Organization struct{ ID string }
		APIKey       struct{ ID, Secret string } `json:"api_key"`
		Credential   struct{ Password string }
	}
	const given = "sign-up"
	once := []string{"Idempotency-Key", w.mark}
	if w.mails == nil {
		w.call(given, "POST", "/v1/signup", body, 201, &up, once...)
		w.call(given+" again", "POST", "/v1/signup", body, 201, nil, once...)
	} else {
		w.call("sign-up by mail", "POST", "/v1/signup", body, 202, nil)
		code := w.known("the code of a sign-up", w.mailed(w.mark+"@acme.example", `mv_[A-Za-z0-9_-]+`))
		w.call("a wrong code", "POST", "/v1/signup/verify", map[string]any{"code": w.secret("a wrong code").text}, 0, nil)
		w.call(given, "POST", "/v1/signup/verify", map[string]any{"code": code.text}, 201, &up, once...)
		w.call(given+" again", "POST", "/v1/signup/verify", map[string]any{"code": code.text}, 201, nil, once...)
	}
	w.key, w.organization = w.known("the first API key", up.APIKey.Secret, given).text, up.Organization.ID
	w.known("the first credential's password", up.Credential.Password, given)
	w.call("sign-up of a taken tenant", "POST", "/v1/signup", body, 0, nil)

	org := "/v1/organizations/" + w.organization
	var made struct{ ID, Secret string }
	w.call("make a key", "POST", org+"/api-keys", map[string]any{"name": w.mark, "role": "admin"}, 201, &made)
	w.known("an API key", made.Secret, "make a key")
	var rotated struct{ Secret string }
	w.call("rotate a key", "POST", org+"/api-keys/"+made.ID+":rotate", map[string]any{"overlap": "1h"}, 200, &rotated, "Idempotency-Key", "rotate"+w.mark)
	w.known("a rotated API key", rotated.Secret, "rotate a key")
	for _, secret := range []string{made.Secret, rotated.Secret} {
		w.call("who a key is", "GET", "/v1/me", nil, 200, nil, "Authorization", "Bearer "+secret)
	}
	for what, header := range map[string]string{
		"a wrong key": "Bearer mk_" + w.secret("a wrong key").text, "another scheme": "Token " + w.secret("a key in another scheme").text,
		"basic": "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+w.secret("a password of HTTP").text)), "no scheme": w.secret("a key without a scheme").text,
	} {
		w.call(what, "GET", "/v1/me", nil, 401, nil, "Authorization", header)
		w.call(what, "POST", "/v1/tenants/"+w.mark+"/credentials", map[string]any{"username": "x"}, 401, nil, "Authorization", header, "Idempotency-Key", "k"+w.mark)
	}
	w.members(org)
}

func (w *secretWorld) members(org string) {
	w.Helper()
	var invited struct{ Invitation string }
	const email = "dev@acme.example"
	w.call("invite", "POST", org+"/members", map[string]any{"email": email, "role": "developer"}, 201, &invited)
	if w.mails != nil {
		invited.Invitation = w.mailed(email, `mi_[A-Za-z0-9_-]+`)
		w.mails.Refuse(fmt.Errorf("451 try again"))
		w.call("invite without mail", "POST", org+"/members", map[string]any{"email": "lost@acme.example", "role": "viewer"}, 0, nil)
		w.mails.Refuse(nil)
		w.known("an invitation", invited.Invitation)
	} else {
		w.known("an invitation", invited.Invitation, "invite")
	}
	word := w.secret("a member's password").text
	w.call("accept, wrongly", "POST", "/v1/invitations:accept", map[string]any{"invitation": w.secret("a wrong invitation").text, "password": word}, 0, nil)
	w.call("accept, too short", "POST", "/v1/invitations:accept", map[string]any{"invitation": invited.Invitation, "password": "short"}, 400, nil)
	w.call("accept", "POST", "/v1/invitations:accept", map[string]any{"invitation": invited.Invitation, "password": word}, 200, nil)
	w.call("sign in, wrongly", "POST", "/v1/auth/token", map[string]any{"organization": w.organization, "email": email, "password": w.secret("a member's wrong password").text}, 0, nil)
	for range 2 {
		var in struct{ Token string }
		w.call("sign in", "POST", "/v1/auth/token", map[string]any{"organization": w.organization, "email": email, "password": word}, 0, &in)
		w.known("a member's token", in.Token, "sign in")
		w.call("who a member is", "GET", "/v1/me", nil, 200, nil, "Authorization", "Bearer "+in.Token)
	}
}

// credentials makes passwords of devices in every way, and connects with them.
func (w *secretWorld) credentials() {
	w.Helper()
	base := "/v1/tenants/" + w.mark
	chosen, hashed, plain := w.secret("a chosen password"), w.secret("a password that is imported hashed"), w.secret("a password that is imported")
	special := w.secret("a password with quotes")
	special.text = `"<&é/+%` + special.text
	w.call("make a credential", "POST", base+"/credentials", map[string]any{"username": w.mark, "password": chosen.text, "scram": true}, 201, nil)
	w.call("make it again", "POST", base+"/credentials", map[string]any{"username": w.mark, "password": w.secret("the password of a taken name").text}, 409, nil)
	w.call("make one in part", "POST", base+"/credentials?dry_run=true", map[string]any{"username": "dry", "password": w.secret("the password of a dry run").text}, 0, nil)
	w.call("make one with quotes", "POST", base+"/credentials", map[string]any{"username": "quotes", "password": special.text}, 201, nil)
	long := w.secret("a password that is too long")
	w.call("make a long one", "POST", base+"/credentials", map[string]any{"username": "long", "password": strings.Repeat(long.text, 60)}, 400, nil)
	same := w.secret("a password that is the name too")
	w.call("make one like its name", "POST", base+"/credentials", map[string]any{"username": same.text[:4], "pass": same.text}, 400, nil)
	var generated struct{ Password string }
	w.call("generate a password", "POST", base+"/credentials", map[string]any{"username": "generated"}, 201, &generated, "Idempotency-Key", "generate"+w.mark)
	w.known("a generated password", generated.Password, "generate a password")
	salt := []byte("saltsaltsalt")
	sum := sha512.Sum512(append([]byte(hashed.text), salt...))
	digest := w.known("a hash of vmq_passwd", base64.StdEncoding.EncodeToString(sum[:]))
	for i, items := range [][]map[string]any{
		{{"username": "vmq", "hash": "$6$" + base64.StdEncoding.EncodeToString(salt) + "$" + digest.text}, {"username": "imported", "password": plain.text}},
		{{"username": "bad", "hash": "$9$" + digest.text}, {"username": "worse", "password": plain.text}},
	} {
		var o struct{ ID string }
		w.call("import", "POST", base+"/credentials:import", map[string]any{"items": items}, [...]int{202, 400}[i], &o)
		if i == 0 {
			w.until("the import", func() bool {
				var state struct{ State string }
				w.call("an operation", "GET", base+"/operations/"+o.ID, nil, 200, &state)
				return state.State != "running" && state.State != "pending"
			})
		}
	}
	for _, c := range []struct{ user, word string }{
		{w.mark, chosen.text}, {"quotes", special.text}, {"generated", generated.Password}, {"imported", plain.text}, {"vmq", hashed.text},
	} {
		for range 2 { // the gateway remembers it the second time
			w.soon(func() error { return w.connect("mqtt", w.mark+":"+c.user, c.word, true) })
		}
	}
	for user, what := range map[string]string{
		w.mark + ":" + w.mark: "a wrong password", w.mark + ":nobody": "a password of nobody", "nowhere:default": "a password for no tenant", "noprefix": "a password without a tenant",
	} {
		if err := w.connect("mqtt", user, w.secret(what).text, false); err != nil {
			w.Error(err)
		}
	}
	w.malformed()
	w.scram(w.mark, chosen.text, true)
	w.scram(w.mark, w.secret("a wrong password by SCRAM").text, false)
}

// vernemq sends files of vmq-passwd, good and bad, and has one followed.
func (w *secretWorld) vernemq() {
	w.Helper()
	line := func(user, kind string) string {
		salt := []byte("saltsaltsalt")
		sum := sha512.Sum512(append([]byte(w.secret("a password "+kind).text), salt...))
		digest := w.known("a hash "+kind, base64.StdEncoding.EncodeToString(sum[:]))
		return user + ":$6$" + base64.StdEncoding.EncodeToString(salt) + "$" + digest.text + "\n"
	}
	clear := "plain:" + w.secret("a password that was not hashed").text + "\n"
	path := "/v1/tenants/" + w.mark + "/sources/vmq_passwd"
	w.call("a file with a clear password", "PUT", path, map[string]any{"text": line("a", "beside it") + clear}, 400, nil)
	w.call("a file that is one password", "PUT", path, map[string]any{"text": w.secret("a file that is one password").text}, 400, nil)
	w.call("a file of vmq-passwd", "PUT", path, map[string]any{"text": line("b", "of a file")}, 0, nil)
	if w.sources == "" {
		return
	}
	folder := filepath.Join(w.sources, w.mark)
	file := filepath.Join(folder, "vmq.passwd")
	for n, text := range []string{clear, line("followed", "of a file that is followed")} {
		if err := errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			w.Fatal(err)
		}
		if n == 0 {
			w.until("the look at a bad file", func() bool { return bytes.Contains(w.logs.text(), []byte("a file of a tenant cannot be applied")) })
		}
	}
	w.until("the look at a file", func() bool {
		var answer struct{ Items []struct{ Username string } }
		w.call("the followed credentials", "GET", "/v1/tenants/"+w.mark+"/credentials?limit=100", nil, 200, &answer)
		return slices.ContainsFunc(answer.Items, func(c struct{ Username string }) bool { return c.Username == "followed" })
	})
}

func (w *secretWorld) until(what string, done func() bool) {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("%s has not ended", what)
		}
	}
}

// soon tries until it is so, as what the API has changed is everywhere within 2 s.
func (w *secretWorld) soon(try func() error) {
	w.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.Error(err)
			return
		}
	}
}

// readAll notes everything that can be read: the API's GETs, as its own document lists
// them, and what operators have.
func (w *secretWorld) readAll() {
	w.Helper()
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		w.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &document); err != nil {
		w.Fatal(err)
	}
	var id struct{ Items []struct{ ID string } }
	names := map[string]string{"{organization}": w.organization, "{tenant}": w.mark, "{client_id}": w.mark, "{username}": w.mark, "{device}": w.mark, "{domain}": w.mark + ".example", "{revision}": "1", "{operation}": "x"}
	for name, of := range map[string]string{"{key}": "api-keys", "{member}": "members"} {
		w.call("find "+name, "GET", "/v1/organizations/"+w.organization+"/"+of, nil, 200, &id)
		names[name] = id.Items[0].ID
	}
	// Events are written a little later than what they tell.
	w.until("the writing of events", func() bool {
		w.ask("events", "GET events", "GET", w.p.API+"/v1/tenants/"+w.mark+"/events?limit=100", nil, 200, nil, "Authorization", "Bearer "+w.key)
		return bytes.Contains(w.places[len(w.places)-1].text, []byte(`"session"`))
	})
	for path, methods := range document.Paths {
		if _, ok := methods["get"]; !ok || strings.HasSuffix(path, ":stream") { // which goes on, with what GET …/events has
			continue
		}
		url := path
		for name, value := range names {
			url = strings.ReplaceAll(url, name, value)
		}
		kind := "answer"
		switch {
		case strings.Contains(path, "/audit"):
			kind = "audit"
		case strings.HasSuffix(path, "/events"):
			kind = "events"
		}
		w.ask(kind, "GET "+path, "GET", w.p.API+url+"?limit=100", nil, 0, nil, "Authorization", "Bearer "+w.key)
		w.ask(kind, "GET "+path+" without limit", "GET", w.p.API+url, nil, 0, nil, "Authorization", "Bearer "+w.key)
	}
	for _, p := range w.p.Processes {
		if p.Ports["operator"] == 0 {
			continue
		}
		for path, kind := range map[string]string{
			"/metrics": "metrics", "/status": "status", "/status.json": "status", "/process.json": "status", "/health": "status", "/debug/pprof/": "status",
			"/debug/pprof/cmdline": "status", "/debug/pprof/goroutine?debug=2": "status", "/debug/pprof/heap?debug=1": "status", "/debug/pprof/symbol": "status",
			"/api/v1/cluster/show": "status", "/api/v1/cluster/config/show": "status", "/api/v1/session/show": "status", "/api/v1/tenant/show?tenant=" + w.mark: "status", "/api/v1/node/status": "status",
			"/api/v1/session/show?--user&--client_id&--peer_host": "status",
		} {
			w.ask(kind, p.Name+path, http.MethodGet, "http://"+p.Addr("operator")+path, nil, 0, nil)
		}
	}
}
