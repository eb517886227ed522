// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"fmt"
	"time"

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
	CA         string        `yaml:"ca" doc:"PEM file of the region's CA: gateways must have a certificate of it"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Data: "data/broker", Partitions: 64, Sync: "20ms", WriteDelay: 4 * time.Millisecond, Systree: 20 * time.Second}
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
	return nil
}
