// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"testing"
)

func TestBanCommands(t *testing.T) {
	organizationOf(t)
	shown(t, "client_id press-7 is banned until 2", "ban", "create", "acme", "client_id", "press-7", "--reason", "lost", "--for", "1h")
	shown(t, "address 10.0.0.0/8 is banned (ban_", "ban", "create", "acme", "address", "10.1.1.1/8")
	v := good(t, "ban", "list", "acme")
	if n := len(v["items"].([]any)); n != 2 {
		t.Errorf("%d bans: %v", n, v)
	}
	shown(t, "lost", "ban", "list", "acme")
	bad(t, 2, "client_id, username, address, certificate", "ban", "create", "acme", "topic", "x")
	bad(t, 2, "--for", "ban", "create", "acme", "client_id", "x", "--for", "-1h")
	id := v["items"].([]any)[0].(map[string]any)["id"].(string)
	shown(t, "is over", "ban", "delete", "acme", id)
	bad(t, 1, "no ban", "ban", "delete", "acme", id)
	shown(t, "nobody is banned", "ban", "flapping", "acme")
	shown(t, "more than 5 connects in 10 s: banned for 60 s", "ban", "flapping", "acme", "--connects", "5", "--window", "10", "--ban", "60")
	shown(t, "nobody is banned", "ban", "flapping", "acme", "--off")
}

func TestAuthMethodCommands(t *testing.T) {
	organizationOf(t)
	shown(t, "certificate\njwt\npassword\nscram\n", "auth-method", "list", "acme")
	shown(t, "jwt\npassword\n", "auth-method", "set", "acme", "jwt", "password")
	bad(t, 2, "certificate, jwt, password, scram", "auth-method", "set", "acme", "ldap")
	add := []string{"auth-method", "issuer", "add", "acme", "https://issuer.example/", "--audience", "manor,other", "--jwks-url", "https://issuer.example/jwks"}
	good(t, add...)
	v := good(t, append(add, "--publish-claim", "pub")...) // which changes it
	if items := v["items"].([]any); len(items) != 1 || items[0].(map[string]any)["publish_claim"] != "pub" || fmt.Sprint(items[0].(map[string]any)["audience"]) != "[manor other]" {
		t.Errorf("got %v", v)
	}
	bad(t, 2, "audience", "auth-method", "issuer", "add", "acme", "x", "--jwks-url", "https://issuer.example/jwks")
	shown(t, "manor,other", "auth-method", "issuer", "list", "acme")
	shown(t, "ISSUER", "auth-method", "issuer", "delete", "acme", "https://issuer.example/")
	bad(t, 1, "no issuer", "auth-method", "issuer", "delete", "acme", "https://issuer.example/")
	shown(t, "mqtt: 10.0.0.0/8\napi: everywhere", "auth-method", "allow-list", "acme", "--mqtt", "10.0.0.0/8")
	bad(t, 2, "from which this request comes", "auth-method", "allow-list", "acme", "--for-api", "10.0.0.0/8")
	shown(t, "mqtt: everywhere", "auth-method", "allow-list", "acme", "--off")
}
