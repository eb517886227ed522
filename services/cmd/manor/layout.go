// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy"
)

// options are the flags of manor dev.
type options struct {
	data      string
	offset    int
	bind      string
	anonymous string
	brokers   int
	gateways  int
	nats      int // servers; 0 is 1
	tenancies int // 0 is 1
	zones     int // 0 is none
	replicas  int // 0 is 2
	// acme is the directory of a certificate authority for custom domains, acmeCA the file
	// of its roots, and resolver the DNS server that is asked; empty is none, or the system's.
	acme, acmeCA, resolver string
	sources                string        // tenancyd's sources_dir
	settle                 time.Duration // domains.Config's; 0 is its default
	grace                  time.Duration // tenancyd's deletion_grace; 0 is its default
	purgeSettle            time.Duration // purge.Config's; 0 is its default
	// policies is the folder of the installation's own policy; empty is none.
	policies string

	json      bool
	noRestart bool
	logLevel  string
}

// validate says what is wrong with o. The error is Invalid.
func (o *options) validate() error {
	if o.offset < 0 || o.offset > mostOffset {
		return errs.New(errs.Invalid, "--listen-offset: expected 0 to %d, found %d", mostOffset, o.offset)
	}
	if o.offset == 8883-1883 {
		return errs.New(errs.Invalid, "--listen-offset: with %d plain MQTT would have port 8883, at which mosquitto's clients speak TLS unasked; choose another", o.offset)
	}
	bind, err := netip.ParseAddr(o.bind)
	if err != nil {
		return errs.New(errs.Invalid, "--bind: expected an IP address, found %q", o.bind)
	}
	if o.anonymous != "" {
		if err := tenancy.ValidTenantID(o.anonymous); err != nil {
			return errs.New(errs.Invalid, "--anonymous: %w", err)
		}
		if !bind.IsLoopback() {
			return errs.New(errs.Invalid, "--anonymous lets everybody in who can connect: it needs a loopback address, and --bind is %s", bind)
		}
	}
	custom := o.domains(o.data)
	if err := custom.Validate(true); err != nil {
		return errs.New(errs.Invalid, "--acme-directory and --dns: %w", err)
	}
	switch {
	case o.brokers < 0 || o.brokers > mostOfRole:
		return errs.New(errs.Invalid, "--brokers: expected 0 (one process) to %d, found %d", mostOfRole, o.brokers)
	case o.gateways < 0 || o.gateways > mostOfRole:
		return errs.New(errs.Invalid, "--gateways: expected 0 (one process) to %d, found %d", mostOfRole, o.gateways)
	case !slices.Contains([]int{0, 1, 3, 5}, o.nats):
		return errs.New(errs.Invalid, "--nats: expected 1, 3 or 5, found %d", o.nats)
	case o.nats > 1 && o.brokers == 0:
		return errs.New(errs.Invalid, "--nats: %d servers need processes: expected --brokers and --gateways too", o.nats)
	case o.tenancies < 0 || o.tenancies > mostOfRole:
		return errs.New(errs.Invalid, "--tenancies: expected 1 to %d, found %d", mostOfRole, o.tenancies)
	case o.tenancies > 1 && o.brokers == 0:
		return errs.New(errs.Invalid, "--tenancies: %d need processes: expected --brokers and --gateways too", o.tenancies)
	case o.replicas < 0 || o.replicas > 5:
		return errs.New(errs.Invalid, "--replicas: expected 1 to 5, or 0 for 2, found %d", o.replicas)
	case o.zones < 0 || o.zones > o.brokers:
		return errs.New(errs.Invalid, "--zones: expected 0 (none) to the number of brokers, %d, found %d", o.brokers, o.zones)
	case (o.brokers == 0) != (o.gateways == 0):
		return errs.New(errs.Invalid, "--brokers and --gateways: expected both or neither")
	}
	return nil
}

// servers is how many NATS servers there are.
func (o *options) servers() int { return max(o.nats, 1) }

// clustered reports whether the brokers are several.
func (o *options) clustered() bool { return o.brokers > 1 }

// process is one process of the product, as --json lists it.
type process struct {
	Role string `json:"role"`
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Data is the folder that this process alone owns.
	Data  string         `json:"data"`
	Ports map[string]int `json:"ports"`

	zone string // of a broker
}

// The ports of product.md, before --listen-offset.
const (
	portMQTT     = 1883
	portMQTTS    = 8883
	portWS       = 8083
	portWSS      = 8084
	portAPI      = 8080
	portOperator = 8888 // of broker 1, or of the only process
	portGateway  = 8889 // operator's, of gateway 1
	portTenancy  = 8890 // operator's
	portLink     = 44054
	portCluster  = 44053 // of brokers
	portJoin     = 44055 // where brokers admit new ones
	portNATS     = 4222
	portRoutes   = 6222 // between NATS servers
	portStep     = 10   // between two processes of a role

	mostOfRole = 9 // processes
	mostOffset = 65535 - (portJoin + portStep*(mostOfRole-1))
)

// layout is the product as processes, in the order of their start.
func (o *options) layout() []process {
	at := func(base, k int) int { return base + o.offset + portStep*(k-1) }
	folder := func(name string) string { return filepath.Join(o.data, name) }
	mqtt := func(k int) map[string]int {
		return map[string]int{"mqtt": at(portMQTT, k), "mqtts": at(portMQTTS, k), "ws": at(portWS, k), "wss": at(portWSS, k)}
	}
	if o.brokers == 0 {
		ports := mqtt(1)
		ports["api"], ports["operator"] = at(portAPI, 1), at(portOperator, 1)
		return []process{{Role: "all", Name: "dev", Data: o.data, Ports: ports}}
	}
	var all []process
	for k := 1; k <= o.servers(); k++ {
		ports := map[string]int{"nats": at(portNATS, k)}
		if o.servers() > 1 {
			ports["cluster"] = at(portRoutes, k)
		}
		all = append(all, process{Role: "nats", Name: natsName(k), Data: folder(natsName(k)), Ports: ports})
	}
	for k := 1; k <= o.brokers; k++ {
		name := fmt.Sprintf("broker-%d", k)
		ports := map[string]int{"link": at(portLink, k), "operator": at(portOperator, k)}
		if o.clustered() {
			ports["cluster"], ports["join"] = at(portCluster, k), at(portJoin, k)
		}
		all = append(all, process{Role: "broker", Name: name, Data: folder(name), Ports: ports, zone: o.zone(k)})
	}
	// After the brokers, on which its health depends.
	for k := 1; k <= max(o.tenancies, 1); k++ {
		name := fmt.Sprintf("tenancy-%d", k)
		all = append(all, process{Role: "tenancy", Name: name, Data: folder(name), Ports: map[string]int{"api": at(portAPI, k), "operator": at(portTenancy, k)}})
	}
	for k := 1; k <= o.gateways; k++ {
		name := fmt.Sprintf("gateway-%d", k)
		ports := mqtt(k)
		ports["operator"] = at(portGateway, k)
		all = append(all, process{Role: "gateway", Name: name, Data: folder(name), Ports: ports})
	}
	return all
}

// zone is where broker k runs: a, b, c and so on, in turn.
func (o *options) zone(k int) string {
	if o.zones == 0 {
		return ""
	}
	return string(rune('a' + (k-1)%o.zones))
}

// checkPorts returns an error that names the first port that is in use. Ports
// that outgoing connections take too are waited for.
func (o *options) checkPorts(ctx context.Context, all []process) error {
	for i := range all {
		for name := range all[i].Ports {
			patience := time.Duration(0)
			if all[i].Ports[name] >= node.EphemeralPort {
				patience = node.PortPatience
			}
			ln, err := node.Listen(ctx, all[i].local(name), "--listen-offset", patience)
			if err != nil {
				return errs.New(errs.Unavailable, "%s of %s: %w", name, all[i].Name, err)
			}
			_ = ln.Close()
		}
	}
	return nil
}

// host is where clients on this machine find what listens at bind.
func (o *options) host() string {
	switch ip, err := netip.ParseAddr(o.bind); {
	case err != nil || !ip.IsUnspecified():
		return o.bind
	case ip.Is4():
		return "127.0.0.1"
	default:
		return "::1"
	}
}

// addr is the address of one of the process's ports that clients use.
func (p *process) addr(host, port string) string {
	return net.JoinHostPort(host, strconv.Itoa(p.Ports[port]))
}

// local is the address of one of the process's ports on loopback.
func (p *process) local(port string) string { return p.addr("127.0.0.1", port) }
