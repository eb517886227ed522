// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"time"

	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy/managedca"
)

// config is gatewayd's configuration.
type config struct {
	node.Config    `yaml:",inline"`
	Data           string            `yaml:"data" doc:"folder for what is known of tenants and credentials while the control plane is away"`
	Region         string            `yaml:"region" doc:"the region of this gateway; tenants of others are unknown here; empty takes all"`
	Domain         string            `yaml:"domain" doc:"tenants are served at TENANT.DOMAIN"`
	DomainKeyFile  string            `yaml:"domain_key_file" doc:"file with the 32 bytes that are domains.key_file of tenancyd, with which keys of custom domains' certificates and the secrets of TLS session tickets are opened; empty serves no custom domains, and shares no tickets with other gateways where tenancyd has it"`
	Anonymous      string            `yaml:"anonymous" doc:"tenant of clients that name none and bring no password, on the plain listeners; for development; empty is none"`
	ConnectTimeout time.Duration     `yaml:"connect_timeout" doc:"how long handshakes, and CONNECT, may take each"`
	Loops          int               `yaml:"loops" doc:"event loops that share the connections without TLS; 0 is one for each processor"`
	Broker         brokerConfig      `yaml:"broker"`
	NATS           nats.Section      `yaml:"nats"`
	Listeners      []listener.Config `yaml:"listeners"`
}

type brokerConfig struct {
	Address   string        `yaml:"address" doc:"host:port of a broker's listener for links; the others are told by it"`
	Addresses []string      `yaml:"addresses" doc:"instead of address: several of them, any one will do"`
	OwnerWait time.Duration `yaml:"owner_wait" doc:"how long a client waits for its partition to have a broker, as while one takes the place of another; then it is refused with 0x88"`
	GuestWait time.Duration `yaml:"guest_wait" doc:"after how long a client whose partition has no broker is given a guest session, if its tenant has allow_register_during_netsplit; from owner_wait on there are none"`
	Links     int           `yaml:"links" doc:"links kept to each broker"`
	Cert      string        `yaml:"cert" doc:"PEM file with this node's certificate"`
	Key       string        `yaml:"key" doc:"PEM file with its key"`
	CA        string        `yaml:"ca" doc:"PEM file with the region's CA: brokers must have a certificate of it, with their name"`
}

// seeds are the addresses of brokers to begin with.
func (c *brokerConfig) seeds() []string {
	if len(c.Addresses) > 0 {
		return c.Addresses
	}
	return []string{c.Address}
}

func defaults() *config {
	return &config{
		Config: node.DefaultConfig("127.0.0.1:8889"), Data: "data/gateway", Domain: "localhost", ConnectTimeout: 10 * time.Second,
		Broker:    brokerConfig{Address: "127.0.0.1:44054", Links: 2, OwnerWait: 10 * time.Second, GuestWait: 5 * time.Second},
		NATS:      nats.DefaultSection(),
		Listeners: []listener.Config{{Name: "mqtt", Kind: listener.MQTT, Address: "127.0.0.1:1883"}},
	}
}

// keys returns what opens the keys of custom domains; nil without a key file.
func (c *config) keys() (func(purpose string, sealed []byte) ([]byte, error), error) {
	if c.DomainKeyFile == "" {
		return nil, nil
	}
	s, err := managedca.LoadSealer(c.DomainKeyFile)
	if err != nil {
		return nil, errs.New(errs.Invalid, "domain_key_file: %w", err)
	}
	return s.Open, nil
}

// Validate is called once the configuration is loaded.
func (c *config) Validate() error {
	var p node.Problems
	p.Add("", c.Config.Validate())
	_, err := c.keys()
	p.Add("", err)
	p.Expect(c.Data != "", "data: expected a folder")
	p.Expect(c.Domain != "", "domain: expected a domain such as eu.mqtt.example")
	p.Expect(c.ConnectTimeout > 0, "connect_timeout: expected a duration above 0 such as 10s, found %v", c.ConnectTimeout)
	p.Expect(c.Loops >= 0 && c.Loops <= 256, "loops: expected 0 to 256, found %d", c.Loops)
	for i, address := range c.Broker.seeds() {
		_, _, err := net.SplitHostPort(address)
		name := "broker.address"
		if len(c.Broker.Addresses) > 0 {
			name = fmt.Sprintf("broker.addresses[%d]", i)
		}
		p.Expect(err == nil, "%s: expected host:port, found %q", name, address)
	}
	p.Expect(c.Broker.OwnerWait > 0 && c.Broker.OwnerWait <= time.Minute, "broker.owner_wait: expected a duration up to 1m such as 10s, found %v", c.Broker.OwnerWait)
	p.Expect(c.Broker.GuestWait > 0 && c.Broker.GuestWait <= time.Minute, "broker.guest_wait: expected a duration up to 1m such as 5s, found %v", c.Broker.GuestWait)
	p.Expect(c.Broker.Cert != "" && c.Broker.Key != "" && c.Broker.CA != "", "broker: expected cert, key and ca, which links need")
	p.Expect(c.Broker.Links >= 1 && c.Broker.Links <= 16, "broker.links: expected 1 to 16, found %d", c.Broker.Links)
	p.Add("nats.", c.NATS.Validate())
	p.Expect(len(c.Listeners) > 0, "listeners: expected at least one")
	for i := range c.Listeners {
		p.Add(fmt.Sprintf("listeners[%d]: ", i), c.Listeners[i].Validate())
	}
	return p.Err()
}
