// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/node"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"broker: {cert: a, key: b, ca: c}", ""},
		{"broker: {cert: a, key: b, ca: c}\nlisteners: [{kind: ws, address: '127.0.0.1:0', trusted_proxies: [10.0.0.0/8], versions: ['5']}]", ""},
		{"", "cert, key and ca"},
		{"brokr: {cert: a}", "broker"},
		{"broker: {cert: a, key: b, ca: c}\nlisteners: [{kind: tcp, address: '127.0.0.1:0'}]", "mqtt, mqtts, ws or wss"},
		{"broker: {cert: a, key: b, ca: c}\nlisteners: [{kind: mqtt, addr: '127.0.0.1:0'}]", "address"},
		{"broker: {cert: a, key: b, ca: c, links: 99}", "1 to 16"},
		{"broker: {cert: a, key: b, ca: c, addresses: ['b1.example:44054', 'b2.example:44054'], owner_wait: 5s}", ""},
		{"broker: {cert: a, key: b, ca: c, addresses: ['b1.example:44054', b2.example]}", `broker.addresses[1]: expected host:port, found "b2.example"`},
		{"broker: {cert: a, key: b, ca: c, address: b2.example}", `broker.address: expected host:port, found "b2.example"`},
		{"broker: {cert: a, key: b, ca: c, owner_wait: 0s}", "broker.owner_wait"},
		{"broker: {cert: a, key: b, ca: c, links: 99}\nlog: {level: loud}", "log.level"},
		{"broker: {cert: a, key: b, ca: c}\nlisteners: [{kind: ws, address: '127.0.0.1:0'}, {kind: wss, address: '127.0.0.1:0'}]", "listeners[1]: listener wss://127.0.0.1:0"},
		{"broker: {cert: a, key: b, ca: c}\nlisteners: [{kind: tcp, address: '127.0.0.1:0'}]", "listener tcp://127.0.0.1:0"},
	} {
		file := filepath.Join(t.TempDir(), "gatewayd.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := node.CheckConfig(file, defaults())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngives %v, expected %q", c.text, err, c.want)
		}
	}
}

func TestConfig_Keys(t *testing.T) {
	c := defaults()
	if open, err := c.keys(); open != nil || err != nil {
		t.Errorf("without a file: %v", err)
	}
	c.DomainKeyFile = filepath.Join(t.TempDir(), "domains.key")
	if _, err := c.keys(); err == nil || !strings.Contains(err.Error(), "domain_key_file: expected a file with 32 random bytes") {
		t.Errorf("with a file that is missing: %v", err)
	}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "domain_key_file: expected a file with 32 random bytes") {
		t.Errorf("the check of the configuration, with a file that is missing: %v", err)
	}
	if err := os.WriteFile(c.DomainKeyFile, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if open, err := c.keys(); open == nil || err != nil {
		t.Errorf("with a file: %v", err)
	}
}
