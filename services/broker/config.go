// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/services/broker/join"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/partition"
)

// Config is the broker's section of a configuration.
type Config struct {
	Data       string        `yaml:"data" doc:"folder of the store; one process holds it at a time"`
	Partitions int           `yaml:"partitions" doc:"partitions of the region, 1 to 65535; never changes for a store"`
	Shards     int           `yaml:"shards" doc:"turns that may run at once, 1 to 64; 0 is one for each processor"`
	Sync       string        `yaml:"sync" doc:"when commits are synced to disk: commit, none, or at the latest after a duration such as 20ms; a killed process loses nothing under any of them, a power cut at most that long"`
	WriteDelay time.Duration `yaml:"write_delay" doc:"how long a QoS 1 message to persistent sessions that are connected stays unwritten, at most twice that: if all of them acknowledge it meanwhile it is never written, and its PUBACK goes then; 0 writes at once"`
	Systree    time.Duration `yaml:"systree_interval" doc:"how often the $SYS topics are published, 1s to 1h; 0 is never. VerneMQ: systree_interval"`
	Operator   string        `yaml:"systree_tenant" doc:"tenant whose clients may read all metrics of this node below $SYS/<node>; empty is none. VerneMQ: systree_mountpoint"`
	Listen     string        `yaml:"listen" doc:"address for links from gateways; empty accepts none"`
	Cert       string        `yaml:"cert" doc:"PEM file of this node's certificate, for links"`
	Key        string        `yaml:"key" doc:"PEM file of its key"`
	CA         string        `yaml:"ca" doc:"PEM file of the region's CA: gateways and other brokers must have a certificate of it"`
	Cluster    ClusterConfig `yaml:"cluster"`

	// Joins tells brokers that join of the control plane; empty without one.
	Joins join.Cluster `yaml:"-"`
	// Bus is the control plane of a cluster; nil without one. Who runs the broker sets
	// and closes it.
	Bus bus.Bus `yaml:"-"`
}

// ClusterConfig makes a broker one of several of a region; the zero value is a broker
// on its own.
type ClusterConfig struct {
	Listen         string   `yaml:"listen" doc:"address for links from other brokers, such as 0.0.0.0:44053; empty is a broker on its own"`
	Advertise      string   `yaml:"advertise" doc:"host:port at which other brokers reach cluster.listen; empty is the same, which must then name one address"`
	AdvertiseLinks string   `yaml:"advertise_links" doc:"host:port at which gateways reach broker.listen; empty is the same, which must then name one address"`
	Zone           string   `yaml:"zone" doc:"where this broker runs, such as an availability zone: the replicas of a partition are in different zones, where there are enough; empty is nowhere in particular"`
	Labels         []string `yaml:"labels" doc:"labels of the partitions that this broker takes; shared is that of partitions of which nobody has said one, and none is the same as shared alone"`
	Reserved       int      `yaml:"reserved" doc:"how many of the partitions, the last ones, are no tenant's until an operator places one there (manor admin tenant place); the same on every broker, never changes for a store"`
	Join           string   `yaml:"join" doc:"host:port of the join listener of a broker of the cluster: with an empty data folder this broker gets its certificate there, with token, and later has it renewed there; cert, key and ca are then not needed"`
	Token          string   `yaml:"token" doc:"join token, of manor admin cluster token create; not needed once the broker has joined"`
	JoinListen     string   `yaml:"join_listen" doc:"address at which new brokers with a join token get their certificates, such as 0.0.0.0:44055; needs ca_key; empty admits none here"`
	CAKey          string   `yaml:"ca_key" doc:"PEM file of the key of the region's CA, on brokers that make join tokens and certificates; empty on the others"`
	CompressLinks  string   `yaml:"compress_links" doc:"whether what goes to other brokers is compressed where it gets smaller: auto is to those of another zone, on to all, off to none"`
	Replicas       int      `yaml:"replicas" doc:"brokers that keep each partition without a label, 1 to 5; 2 survives the loss of any one with its disk"`
}

// On reports whether the broker is one of a cluster.
func (c *ClusterConfig) On() bool { return c.Listen != "" }

// Address is where other brokers reach this one.
func (c *ClusterConfig) Address() string { return cmp.Or(c.Advertise, c.Listen) }

// validate says what is wrong with c, if it is on; links is where the broker listens
// for gateways.
func (c *ClusterConfig) validate(links string) error {
	if !c.On() {
		return nil
	}
	for _, a := range []struct {
		key, listen, advertise string
	}{{"advertise", c.Listen, c.Advertise}, {"advertise_links", links, c.AdvertiseLinks}} {
		if _, _, err := splitAddress(a.listen); err != nil {
			return fmt.Errorf("%s: expected a listener at host:port beside it: %w", a.key, err)
		}
		told := cmp.Or(a.advertise, a.listen)
		host, port, err := splitAddress(told)
		if err != nil {
			return fmt.Errorf("%s: %w", a.key, err)
		}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			return fmt.Errorf("%s: expected host:port at which others reach this broker, since it listens at %s", a.key, told)
		}
		if port == 0 && a.advertise != "" {
			return fmt.Errorf("%s: expected a port other than 0, found %q", a.key, told)
		}
	}
	if len(c.Zone) > 255 {
		return fmt.Errorf("zone: expected up to 255 bytes, found %d", len(c.Zone))
	}
	if len(c.Labels) > 255 {
		return fmt.Errorf("labels: expected up to 255, found %d", len(c.Labels))
	}
	for _, l := range c.Labels {
		if _, err := layout.Normal(l); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
	}
	if c.CompressLinks != "auto" && c.CompressLinks != "on" && c.CompressLinks != "off" {
		return fmt.Errorf("compress_links: expected auto, on or off, found %q", c.CompressLinks)
	}
	if c.JoinListen != "" {
		if _, _, err := splitAddress(c.JoinListen); err != nil {
			return fmt.Errorf("join_listen: %w", err)
		}
		if c.CAKey == "" {
			return errors.New("join_listen: certificates need ca_key")
		}
	}
	if c.Join != "" {
		if _, _, err := splitAddress(c.Join); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		return fmt.Errorf("replicas: %d is not between 1 and 5", c.Replicas)
	}
	return nil
}

// accepted are the labels as the heartbeat has them.
func (c *ClusterConfig) accepted() (out []string) {
	for _, label := range c.Labels {
		if n, err := layout.Normal(label); err == nil { // validate has seen to it
			out = append(out, n)
		}
	}
	return out
}

// splitAddress takes host:port apart.
func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		var n uint64
		n, err = strconv.ParseUint(text, 10, 16)
		port = uint16(n)
	}
	if err != nil {
		return "", 0, fmt.Errorf("expected host:port, found %q", address)
	}
	return host, port, nil
}

// JoinDir is the folder, in that of the store, of what a broker has from joining.
func (c *Config) JoinDir() string { return filepath.Join(c.Data, "pki") }

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Data: "data/broker", Partitions: 64, Sync: "20ms", WriteDelay: 4 * time.Millisecond, Systree: 20 * time.Second, Cluster: ClusterConfig{CompressLinks: "auto", Replicas: 2}}
}

// Validate says what is wrong with c.
func (c *Config) Validate() error {
	if c.Data == "" {
		return errors.New("data: a folder is expected")
	}
	if c.Partitions < 1 || c.Partitions > 65535 {
		return fmt.Errorf("partitions: %d is not between 1 and 65535", c.Partitions)
	}
	if c.Shards < 0 || c.Shards > 64 {
		return fmt.Errorf("shards: %d is not between 0 and 64", c.Shards)
	}
	if c.WriteDelay < 0 || c.WriteDelay > 100*time.Millisecond {
		return fmt.Errorf("write_delay: %v is not between 0 and 100ms", c.WriteDelay)
	}
	if c.Systree != 0 && (c.Systree < time.Second || c.Systree > time.Hour) {
		return fmt.Errorf("systree_interval: %v is not 0 or between 1s and 1h", c.Systree)
	}
	if _, err := partition.ParseSync(c.Sync); err != nil {
		return err
	}
	if c.Listen != "" && (c.Cert == "" || c.Key == "" || c.CA == "") {
		return errors.New("listen: links need cert, key and ca")
	}
	if c.Cluster.On() && (c.Listen == "" || c.Cert == "" || c.Key == "" || c.CA == "") {
		return errors.New("cluster.listen: a cluster needs listen, cert, key and ca")
	}
	if err := c.Cluster.validate(c.Listen); err != nil {
		return fmt.Errorf("cluster.%w", err)
	}
	if c.Cluster.Reserved < 0 || c.Cluster.Reserved >= c.Partitions || c.Cluster.Reserved > 0 && !c.Cluster.On() {
		return fmt.Errorf("cluster.reserved: expected 0 to %d, one less than partitions, and 0 without cluster.listen; found %d", c.Partitions-1, c.Cluster.Reserved)
	}
	return nil
}
