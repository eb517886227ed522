// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// TestSources_Live: VerneMQ's files of a tenant hold for live connections within 2 s of
// their change: users that are gone or have another password are disconnected, and the policy is
// what the ACL says.
func TestSources_Live(t *testing.T) {
	dir := t.TempDir()
	p := startProduct(t, func(o *options, _ *process) { o.sources = dir })
	x := p.signUp(t, "acme")
	if err := os.Mkdir(filepath.Join(dir, "acme"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, "acme", name)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	line := func(user, word, salt string) string {
		sum := sha512.Sum512([]byte(word + salt))
		return user + ":$6$" + base64.StdEncoding.EncodeToString([]byte(salt)) + "$" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
	}
	as := func(user, word string) change {
		return func(c *packet.Connect) { c.Username, c.Password = "acme:"+user, []byte(word) }
	}
	file("vmq.passwd", line("stays", "word-1", "s1")+line("gone", "word-2", "s2")+line("other", "word-3", "s3"))
	file("vmq.acl", "topic all/#\nuser stays\ntopic mine/#\n")
	x.within(func() string {
		if _, k := x.connect(as("gone", "word-2")); k.Reason != mqtt.Success {
			return fmt.Sprintf("gone is answered %v", k.Reason)
		}
		return ""
	})
	stays, gone, other := x.device(as("stays", "word-1")), x.device(as("gone", "word-2")), x.device(as("other", "word-3"))
	x.within(func() string {
		mine, all, others := stays.acked("mine/x"), stays.acked("all/x"), other.acked("mine/x")
		if mine == mqtt.NotAuthorized || all == mqtt.NotAuthorized || others != mqtt.NotAuthorized {
			return fmt.Sprintf("mine %v, all %v, mine of another %v", mine, all, others)
		}
		return ""
	})
	begin := time.Now()
	file("vmq.passwd", line("stays", "word-1", "s1")+line("other", "word-4", "s4"))
	gone.wantDisconnect(mqtt.NotAuthorized)
	other.wantDisconnect(mqtt.NotAuthorized)
	if took := time.Since(begin); took > live {
		t.Errorf("the connections have ended %v after the change", took)
	} else {
		t.Logf("the connections have ended %v after the change", took)
	}
	file("vmq.acl", "topic all/#\n")
	x.within(func() string {
		if r := stays.acked("mine/x"); r != mqtt.NotAuthorized {
			return fmt.Sprintf("mine is answered %v", r)
		}
		return ""
	})
	x.device(as("other", "word-4"))
	// What does not parse takes nothing away, and the API says so.
	file("vmq.passwd", "stays\n")
	x.within(func() string {
		var sources struct {
			Items []struct{ Kind, Problem string }
		}
		x.do("GET", "/v1/tenants/acme/sources", "", &sources)
		for _, s := range sources.Items {
			if s.Kind == "vmq_passwd" && s.Problem != "" {
				return ""
			}
		}
		return fmt.Sprintf("the sources are %+v", sources)
	})
	x.device(as("other", "word-4"))
	if r := stays.acked("all/x"); r == mqtt.NotAuthorized {
		t.Errorf("stays is answered %v", r)
	}
}
