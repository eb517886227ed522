// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// report is where the product listens, as --json says it.
type report struct {
	API       string    `json:"api"`
	Operator  string    `json:"operator"`
	CA        string    `json:"ca"`
	Processes []process `json:"processes"`
}

// newReport makes the report of a layout whose processes have their pids.
func newReport(o *options, ca string, all []process) report {
	r := report{CA: ca, Processes: all}
	for i := range all {
		p := &all[i]
		if p.Ports["api"] != 0 {
			r.API = "http://" + p.addr(o.host(), "api")
		}
		if p.Ports["operator"] == portOperator+o.offset {
			r.Operator = "http://" + p.local("operator")
		}
	}
	return r
}

// write writes the report: a line of JSON, or what a person wants to read.
func (r report) write(w io.Writer, o *options, took time.Duration) error {
	if o.json {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "Manor is ready after %v. Its data is in %s; Ctrl-C stops it.\n\n", took.Round(10*time.Millisecond), o.data)
	first := 0
	for i := range r.Processes {
		p := &r.Processes[i]
		if p.Ports["mqtt"] == 0 {
			continue
		}
		if first == 0 {
			first = p.Ports["mqtt"]
		}
		fmt.Fprintf(w, "  %-10s mqtt://%s   mqtts://TENANT.%s:%d\n", p.Name, p.addr(o.host(), "mqtt"), devDomain, p.Ports["mqtts"])
		fmt.Fprintf(w, "  %-10s ws://%s/mqtt   wss://TENANT.%s:%d/mqtt\n", "", p.addr(o.host(), "ws"), devDomain, p.Ports["wss"])
	}
	fmt.Fprintf(w, "  %-10s %s/v1   (described by %s/v1/openapi.json)\n", "API", r.API, r.API)
	fmt.Fprintf(w, "  %-10s %s/status\n  %-10s %s\n", "operator", r.Operator, "CA", r.CA)
	if o.anonymous != "" {
		fmt.Fprintf(w, "  %-10s clients without credentials belong to the tenant %s\n", "anonymous", o.anonymous)
	}
	tls := 0
	for _, p := range r.Processes {
		tls = max(tls, p.Ports["mqtts"])
		if p.Ports["mqtt"] == first {
			tls = p.Ports["mqtts"]
			break
		}
	}
	_, err := strings.NewReplacer(
		"@API", r.API, "@HOST", o.host(), "@MQTTS", fmt.Sprint(tls), "@MQTT", fmt.Sprint(first), "@CA", r.CA,
	).WriteString(w, example)
	return err
}

// example takes the password out of the answer with sed, so that it needs
// nothing but curl and mosquitto's clients.
const example = `
Paste this to sign up, subscribe and publish (it needs curl and mosquitto's clients):

  tenant=acme-$(date +%s)
  answer=$(curl -sS @API/v1/signup -H 'Content-Type: application/json' \
    -d '{"organization":"Acme","email":"ops@acme.example","password":"correct-horse-battery","tenant":"'$tenant'"}')
  password=$(printf %s "$answer" | sed -n 's/.*"credential": *{[^}]*"password": *"\([^"]*\)".*/\1/p')
  mosquitto_sub -h @HOST -p @MQTT -u $tenant:default -P "$password" -t 'hello/#' -v -C 1 -W 10 &
  sleep 1; mosquitto_pub -h @HOST -p @MQTT -u $tenant:default -P "$password" -t hello/world -m 'it works'; wait

The same over TLS, where the hostname says which tenant (the first line only where *.localhost does not resolve):

  echo "127.0.0.1 $tenant.localhost" | sudo tee -a /etc/hosts
  mosquitto_pub --cafile @CA -h $tenant.localhost -p @MQTTS -u default -P "$password" -t hello/world -m 'it works'

`
