// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"strings"
	"testing"
)

func TestConfig_Cluster(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(c *Config)
		want string // in the error; empty is none
	}{
		{"off", func(c *Config) { c.Cluster = ClusterConfig{Replicas: 99, Advertise: "nonsense"}; c.Cert = "" }, ""},
		{"on", func(*Config) {}, ""},
		{"port 0, in tests", func(c *Config) { c.Cluster.Listen = "127.0.0.1:0" }, ""},
		{"behind something", func(c *Config) {
			c.Cluster.Listen, c.Cluster.Advertise = "0.0.0.0:44053", "broker-1.example:44053"
			c.Listen, c.Cluster.AdvertiseLinks = ":44054", "[2001:db8::1]:44054"
		}, ""},
		{"no port", func(c *Config) { c.Cluster.Listen = "10.0.0.1" }, "cluster.advertise: "},
		{"a port of letters", func(c *Config) { c.Cluster.Listen = "10.0.0.1:mqtt" }, "expected host:port"},
		{"everywhere", func(c *Config) { c.Cluster.Listen = "0.0.0.0:44053" }, "cluster.advertise: expected host:port at which others reach"},
		{"everywhere, without a host", func(c *Config) { c.Cluster.Listen = ":44053" }, "cluster.advertise: "},
		{"links everywhere", func(c *Config) { c.Listen = "[::]:44054" }, "cluster.advertise_links: "},
		{"advertises nobody knows what", func(c *Config) { c.Cluster.Advertise = "10.0.0.1:0" }, "a port other than 0"},
		{"no links", func(c *Config) { c.Listen = "" }, "cluster.listen: a cluster needs listen"},
		{"no certificate", func(c *Config) { c.Cert = "" }, "cert, key and ca"},
		{"no replica", func(c *Config) { c.Cluster.Replicas = 0 }, "cluster.replicas: 0 is not between 1 and 5"},
		{"six replicas", func(c *Config) { c.Cluster.Replicas = 6 }, "between 1 and 5"},
		{"a label without a name", func(c *Config) { c.Cluster.Labels = []string{"a", ""} }, "cluster.labels"},
		{"a zone that no heartbeat holds", func(c *Config) { c.Cluster.Zone = strings.Repeat("z", 256) }, "cluster.zone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig()
			config.Listen, config.Cert, config.Key, config.CA = "127.0.0.1:44054", "c", "k", "a"
			config.Cluster.Listen = "127.0.0.1:44053"
			c.set(&config)
			if c.name == "off" {
				config.Listen = ""
			}
			switch err := config.Validate(); {
			case err == nil && c.want != "":
				t.Errorf("no error, expected %q", c.want)
			case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, expected %q", err, c.want)
			}
		})
	}
}
