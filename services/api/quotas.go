// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"

	"github.com/manormq/manor/tenancy"
)

// enforcement says of each quota where it holds, and what happens beyond it; a
// quota that is not here is kept and shown, but holds nowhere yet. Whoever
// enforces one more adds it. docs/quotas.md is written from this table.
var enforcement = map[string]string{
	"connections":           "gateway, CONNECT: waits up to 1.5 s for what other gateways hold (0.5 s if they say that all is used; at each gateway 64 of a tenant do), then refused with 0x97. Of all gateways together, while they hear each other (below)",
	"connect_rate":          "gateway, CONNECT with the right password: waits up to a second, then refused with 0x9F; five seconds' worth may come at once. Of all gateways together",
	"connect_rate_client":   "gateway, CONNECT with the same client identifier: as connect_rate",
	"publish_rate":          "gateway: clients are read more slowly; after 10 s of that QoS 0 is dropped and counted, and MQTT 5 is refused with 0x97. Of all gateways together",
	"publish_rate_client":   "gateway: the client is read more slowly, and disconnected with 0x96 after as long as the setting disconnect_over_rate_after says",
	"delivery_rate":         "gateway: clients are written to more slowly, each message when it may be, and the clients of a tenant take turns; as many as in a second may come at once. Answers are not held back. What the broker may send at any time waits at the gateway, the rest at the broker: QoS 1 and 2 in their queues, QoS 0 is dropped and counted. Of all gateways together",
	"bytes_in_rate":         "gateway: as publish_rate",
	"bytes_out_rate":        "gateway: as delivery_rate",
	"bytes_in_rate_client":  "gateway: as publish_rate_client",
	"bytes_out_rate_client": "gateway: as delivery_rate, for one client",
	"packet_size":           "gateway, each packet after CONNECT: the connection is closed with 0x95; CONNACK tells Maximum Packet Size. API, publish: 409",
	"topic_length":          "gateway, PUBLISH, will and SUBSCRIBE: refused with 0x90 or 0x8F. API, publish: 409",
	"topic_levels":          "gateway, PUBLISH, will and SUBSCRIBE: refused with 0x90 or 0x8F. API, publish: 409",
	"topic_level_length":    "gateway, PUBLISH, will and SUBSCRIBE: refused with 0x90 or 0x8F. API, publish: 409",
	"topic_alias_maximum":   "gateway: CONNACK tells it; an alias above it closes the connection with 0x94",
	"receive_maximum":       "gateway: CONNACK tells it, and more unacknowledged publishes close the connection with 0x93. 3.x clients are not told: the gateway reads no further",
	"subscriptions_client":  "broker, SUBSCRIBE: 0x97 for each further filter",
	"subscriptions_request": "gateway, SUBSCRIBE: 0x97 for all of its filters",
	"wildcard_root":         "gateway, SUBSCRIBE: 0x8F for filters that begin with + or #, if it is 0",
	"persistent_sessions":   "broker, CONNECT that makes a session with an expiry: refused with 0x97. What other brokers have is known a second late",
	"session_expiry":        "gateway, CONNECT and DISCONNECT: a longer expiry is cut, and CONNACK tells",
	"queue_messages":        "broker, for each session: a full queue refuses the new message, which is counted, logged and an event (dropped, queue_full)",
	"queue_bytes":           "broker, for each session: a full queue refuses the new message, which is counted, logged and an event (dropped, queue_full)",
	"retained_messages":     "broker, PUBLISH with retain: refused with 0x97 (QoS 0: counted, logged and an event; 3.x: closed). What other brokers have is known a second late. API, publish: 409",
	"retained_bytes":        "broker, PUBLISH with retain: refused with 0x97 (QoS 0: counted, logged and an event; 3.x: closed). What other brokers have is known a second late. API, publish: 409",
	"keep_alive_minimum":    "gateway, CONNECT: MQTT 5 clients are told another keep alive; 3.x clients keep theirs",
	"keep_alive_maximum":    "gateway, CONNECT: MQTT 5 clients are told another keep alive; 3.x clients keep theirs",
	"will_delay":            "gateway, CONNECT: a longer delay is cut",
	"will_size":             "gateway, CONNECT: refused with 0x97",
	"members":               "API, inviting a member: 409. Of an organization, the widest of its tenants",
	"api_keys":              "API, making an API key: 409. Of an organization, the widest of its tenants",
	"audit_days":            "tenancyd, each hour: older records of the audit log are removed, but the newest. Of an organization, the widest of its tenants",
	"credentials":           "API, making a credential: 409",
	"grants":                "API, making a revision of a policy: 409, for the entries of one class",
	"policy_bytes":          "API, making or testing a policy: 409, for all of its files together",
	"policy_time_ms":        "API, making a revision of a policy: refused if the grants of a class take longer. mqtt.connect is cut off after ten times as long, and the client refused",
	"devices":               "API, making a device: 409",
	"subscriptions":         "broker, SUBSCRIBE: 0x97 (3.x: 0x80) for each further filter. What other brokers have is known a second late, and what is granted at the same moment counts afterwards: that much more may be granted",
	"shared_groups":         "broker, SUBSCRIBE: 0x97 (3.x: 0x80) for a filter that would make a further group (a name and a filter). Groups that are made at the same moment are not counted yet",
	"shared_group_members":  "broker, SUBSCRIBE: 0x97 (3.x: 0x80) for each further member. Of another broker's members those with a connection count, or those that are stored, whichever are more; who joins at the same moment is not counted yet",
	"fan_out":               "broker, PUBLISH: the receivers beyond it do not get the message, which is counted, logged and an event (dropped, fan_out); the publisher is acknowledged. A shared subscription is one receiver. A broker that is alone counts exactly. In a cluster each partition of the tenant counts its own, above QoS 0 and at other brokers: at most the quota, and at most 5/4 of its share of the quota and 64 (a tenant of plan free has one partition, and so an exact count)",
	"storage_bytes":         "broker, what waits and what is retained, together: a new session with an expiry is refused with 0x97, and a queue refuses the new message, which is counted, logged and an event (dropped, storage_bytes). What other brokers store is known a second late",
	"retained_rate":         "broker, PUBLISH with retain and a payload: refused with 0x97 (QoS 0: counted, logged and an event; 3.x: closed). Wills are not refused. As many as in a second may come at once. Of all brokers together (below). API, publish: 429",
	"retained_subscribe":    "broker, SUBSCRIBE: paced. A session is sent as many retained messages at once, and as many in each further second, until it has all; 0 is as 1. What was not sent when its connection ends is not sent later",
	"api_rate":              "API, each request: 429 with Retry-After; answers say in RateLimit-Policy and RateLimit what is left. Two seconds' worth may come at once. Requests about a tenant count for that tenant, the others for the organization, with the widest limit of its tenants. Of all tenancyds together (below)",
	"tenants":               "API, making a tenant: 409. Of an organization, the widest of its tenants",
	"event_days":            "API, events: older ones are not shown; tenancyd, each hour: they are removed. Nothing is kept for longer than 30 days",
	"domains":               "API, making a domain: 409. Domains that are there stay when it is lowered",
	"client_cas":            "API, replacing client CAs: 409. CAs that are there stay when it is lowered",
}

// notEnforced lists the names of overrides that hold nowhere yet, in the order
// in which quotas are shown.
func notEnforced(overrides map[string]int64) string {
	var names []string
	for _, name := range tenancy.QuotaNames() {
		if _, ok := overrides[name]; ok && enforcement[name] == "" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// QuotasDocument is docs/quotas.md.
func QuotasDocument() []byte {
	var b strings.Builder
	b.WriteString("# Quotas\n\n" +
		"Written by `make generate`. Every quota can be set (`PUT /v1/tenants/{tenant}/quotas/overrides`) and is shown, but not every one holds yet:\n" +
		"those with \"not yet\" limit nothing today. An answer that sets such a quota names it in the header `Quotas-Not-Enforced`.\n" +
		"-1 means that there is no limit. A change reaches new connections within 2 s, and those that are open, but for what CONNACK has promised them\n" +
		"(`receive_maximum`, `topic_alias_maximum`, the keep alive) and for `connections`, which ends none.\n\n" +
		"| quota | where it holds, and what happens beyond it |\n|---|---|\n")
	for _, name := range tenancy.QuotaNames() {
		where := enforcement[name]
		if where == "" {
			where = "not yet"
		}
		b.WriteString("| `" + name + "` | " + where + " |\n")
	}
	b.WriteString(quotasTogether)
	return []byte(b.String())
}

// quotasTogether says how a limit holds across gateways.
const quotasTogether = `
## For Prometheus

` + "`GET /v1/tenants/{tenant}/metrics`" + ` has ` + "`manor_quota_limit` and `manor_quota_usage`" + ` of each quota, ` + "`manor usage metrics TENANT`" + ` writes them. An API key of the role viewer is enough:

    scrape_configs:
      - job_name: manor
        scheme: https
        metrics_path: /v1/tenants/acme/metrics
        authorization: {credentials_file: manor.key}
        static_configs: [{targets: [api.example.com]}]

## All gateways together

` + "`connections`, `connect_rate`, `publish_rate`, `delivery_rate`, `bytes_in_rate` and `bytes_out_rate`" + ` hold for all gateways of a region together: each has a part of the limit,
and the parts go where the clients are ([ADR 0042](adr/0042-quota-parts.md)). Of n gateways each has 1/n of what is used little; where a gateway needs more than half of that, the
gateways tell each other four times a second what they use and want.

- A rate is at most 4% more than the limit, which is what gateways without a client of the tenant may use at once; what passes is 95% of the limit at least while clients want more.
  Demand that moves to another gateway is served there in 1 to 2 s. What may come at once, a second's worth (of connects five), is divided as the rate is.
- While the gateways hear each other in time there are not more ` + "`connections`" + ` than the limit; where not is below. A CONNECT at a gateway that has used up its part waits up to 1.5 s for what others hold
  and do not use, and half a second if all is used. At one gateway 64 CONNECTs of a tenant may wait so, or for ` + "`connect_rate`" + `; further ones are refused at once.
- A client that waits for a rate is woken when its gateway has got clearly more of it.
- Very small limits are coarse: each gateway lets one message, or CONNECT, pass at once.
- A gateway that dies has its part for 2 s more; one that stops gives it back at once.
- While the bus is away for all, every gateway goes on with the part that it had: never nothing, never everything.

There may be more than a limit when gateways do not hear each other, or late. A rate is back at the limit some seconds after they do again; connections that were let in meanwhile stay, and
once the gateways have heard each other nobody else is let in while there are more than the limit.

| case | how much there may be |
|---|---|
| a gateway alone is cut off from the bus | it keeps its part, and after 2 s the others take that too, because they cannot know that it lives: the limit and what it had, at most twice the limit |
| the bus is split | each side takes the whole limit after 2 s: as many times the limit as there are sides |
| reports are later than about 125 ms, or lost | rates: some percent for as long as it lasts. Connections: what was free, divided by the number of gateways, more for each late one |
| gateways start while the bus is away | each that has never heard itself takes a third after 2 s: three have the limit, n of them n/3 of it, beside what those have that were there before. When the bus comes each keeps its third for a second, in which it hears the others, and then all have the limit |

## All brokers together

` + "`subscriptions`, `persistent_sessions`, `storage_bytes`, `retained_messages` and `retained_bytes`" + ` count what all brokers of a region have, and nothing waits for a count
([ADR 0044](adr/0044-quotas-of-tenants.md)). A broker knows exactly what it has itself; the others it asks once a second while something is counted, and without that once half of a limit is used.

- Only answers that are no older than 3 s count. Of a broker that cannot be asked nothing counts after that: nothing is refused, and no message dropped, on a count that may be outdated, and there may be
  as much more as that broker has.
- A tenant comes beyond a limit by what other brokers grant in about a second. When it was below half of the limit as far as was known, that is from the first question on.
- When a partition of the tenant goes to another broker, what others have does not count for half a second, so that what has moved is not counted twice; there may be more meanwhile.
- Each broker asks about 1,000 tenants near a limit in a second, and 1,000 others. With more of them answers are older, and those older than 3 s do not count.

` + "`retained_rate`" + ` is one bucket for all brokers that serve the tenant: while some are set, brokers ask each other four times a second what they let through, and take it off what they may
([ADR 0055](adr/0055-joint-rates.md)). What may come at once is divided by the number of brokers; whoever goes on alone has the whole rate half a second later. It holds within 5% over a minute. A broker whose question
nobody has answered for 2 s, and those beyond 1,000 questions in a second, have the part of one of them.

## All processes of the API together

` + "`api_rate`" + ` is one bucket for all tenancyds in the same way: they tell each other on the bus four times a second what they let through. A balancer may send a tenant's requests to one or to all.
While the bus is away each has the part of one of as many as there were. A process that starts takes a third in its first half second, until it has heard the others.

## Where a limit comes from

From the tenant's plan, from its overrides (` + "`PUT …/quotas/overrides`, which owners may set up to what the plan has: [organizations.md](organizations.md#plans)" + `), or from the installation's policy (` + "`quota.limits`, [policies.md](policies.md#the-installations-policy)" + `), the last of which wins: ` + "`source`" + ` says which. The policy is asked with
each change of plan, overrides or state, and what it says is in the same change: it holds within 2 s at gateways and brokers. When the operator changes the policy, tenants have what it says within 2 s, and as long as it takes to write the records of those that differ.
While the policy fails for a tenant (` + "`held`" + ` in the answer) that tenant keeps all the limits that it had, whatever its plan and overrides say now; nothing is unlimited because something went wrong.

## Usage, headroom, and events

` + "`GET /v1/tenants/{tenant}/quotas`, `manor quota list TENANT`" + `: of each quota the limit, the usage (of a rate, in a second lately, of all gateways), the headroom that is left, and where the limit comes from.
Usage is null where it is not counted, or not all gateways have said it in half a second. When 80% of a quota is used, and when it is used up, the tenant's history has an event, ` + "`quota_80` or `quota_100`" + `
([events.md](events.md)): of the six quotas that gateways share and of ` + "`persistent_sessions`, `subscriptions`, `shared_groups`, `retained_messages`, `retained_bytes` and `storage_bytes`" + ` once when it begins, again after it was below 70% or 85%, and not within five minutes;
of ` + "`credentials`, `devices`, `client_cas` and `domains`" + ` by what the API makes that comes to it, and of ` + "`tenants`" + `, which is the organization's, in the history of each of its tenants. The others bound one client, one message or one group, or are few: their refusals are in the history.
Brokers that count the same tell each for itself; a gateway takes what several tell in five minutes for one, and two gateways may each have heard of it.
`
