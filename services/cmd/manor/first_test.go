// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// firstMost is how long the first five minutes of a device developer may take: from the
// request that signs up to the PUBACK of the first message.
const firstMost = 5 * time.Second

// TestFirstMessage signs up at a manor dev that nobody has used yet, connects with a client
// that knows nothing of Manor, by what the answer says and no more, and publishes.
func TestFirstMessage(t *testing.T) {
	var folder string
	p := startProduct(t, func(o *options, _ *process) { folder = o.data })
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the CA that manor dev prints: %v", err)
	}
	for _, c := range []struct{ id, url string }{{"first-plain", "tcp://" + p.mqtt}, {"first-tls", "ssl://" + p.mqtts}} {
		begun := time.Now()
		body := `{"organization":"Acme","email":"ops@acme.example","password":"correct-horse-battery","tenant":"` + c.id + `"}`
		answer, err := http.Post(p.api+"/v1/signup", "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		var up struct {
			Tenant     struct{ Hostname string }
			Credential struct {
				Username      string
				UsernamePlain string `json:"username_plain"`
				Password      string
			}
		}
		err = json.NewDecoder(answer.Body).Decode(&up)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusCreated {
			t.Fatalf("sign-up: %s, %v", answer.Status, err)
		}
		// By TLS the name of the host says whose the client is.
		o := paho.NewClientOptions().AddBroker(c.url).SetClientID("first").SetPassword(up.Credential.Password).SetConnectRetry(false).
			SetTLSConfig(&tls.Config{RootCAs: roots, ServerName: up.Tenant.Hostname}).SetUsername(up.Credential.Username)
		if c.id == "first-plain" {
			o.SetUsername(up.Credential.UsernamePlain)
		}
		client := paho.NewClient(o)
		if in := client.Connect(); !in.WaitTimeout(firstMost) || in.Error() != nil {
			t.Fatalf("%s: CONNECT: %v", c.id, in.Error())
		}
		if acked := client.Publish("hello/world", 1, false, "it works"); !acked.WaitTimeout(firstMost) || acked.Error() != nil {
			t.Fatalf("%s: PUBLISH: %v", c.id, acked.Error())
		}
		took := time.Since(begun)
		client.Disconnect(100)
		if took > firstMost {
			t.Errorf("%s: the first PUBACK came after %v, expected at most %v", c.id, took, firstMost)
		}
		t.Logf("%s: %v", c.id, took)
	}
}
