// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// rateRows are quotas on what clients send and get, and on how many there are.
var rateRows = map[string]func(x *tenant){
	"publish_rate":          slowed("publish_rate", 20, 30, 1, (*device).sends),
	"publish_rate_client":   slowed("publish_rate_client", 20, 30, 1, (*device).sends),
	"bytes_in_rate":         slowed("bytes_in_rate", 100_000, 10, 20_000, (*device).sends),
	"bytes_in_rate_client":  slowed("bytes_in_rate_client", 100_000, 10, 20_000, (*device).sends),
	"delivery_rate":         slowed("delivery_rate", 20, 30, 1, (*device).gets),
	"bytes_out_rate":        slowed("bytes_out_rate", 100_000, 10, 20_000, (*device).gets),
	"bytes_out_rate_client": slowed("bytes_out_rate_client", 100_000, 10, 20_000, (*device).gets),
	"connections": func(x *tenant) {
		x.device()
		x.quota(`{"connections":1}`)
		for _, c := range []struct { // ServerUnavailable is return code 3 of 3.1.1
			version packet.Version
			reason  mqtt.ReasonCode
			says    string
		}{{packet.V5, mqtt.QuotaExceeded, "connections"}, {packet.V311, mqtt.ServerUnavailable, ""}} {
			x.within(func() string {
				d, k := x.connect(version(c.version))
				_ = d.c.Close()
				if k.Reason == mqtt.Success {
					return "it is let in"
				}
				if k.Reason != c.reason || !strings.Contains(k.ReasonString, c.says) {
					x.Fatalf("CONNACK %#x %q, expected %#x and %q", byte(k.Reason), k.ReasonString, byte(c.reason), c.says)
				}
				return ""
			})
		}
		x.quota(`{}`)
		x.connack(func(k *packet.Connack) bool { return k.Reason == mqtt.Success })
	},
}

// slowed is the test of a rate: what is beyond a second's worth of it takes clearly longer as
// soon as it holds, is told, and does not when it has gone. do has a client send, or get, that
// many messages of that size.
func slowed(quota string, limit int64, messages, size int, do func(d *device, messages int, payload string)) func(x *tenant) {
	return func(x *tenant) {
		// A round beyond the rate takes 1.5 s or more once the first second's worth is used up.
		const clearly, freely = 300 * time.Millisecond, time.Second
		d, payload := x.device(), strings.Repeat("x", size)
		round := func() time.Duration {
			begun := time.Now()
			do(d, messages, payload)
			return time.Since(begun)
		}
		x.quota(fmt.Sprintf(`{%q:%d}`, quota, limit))
		x.within(func() string { // live
			if took := round(); took < clearly {
				return fmt.Sprintf("%d messages of %d bytes in %v", messages, size, took)
			}
			return ""
		})
		x.withinTime(soon, func() string { // on a slow machine the round above may have been slow without a quota
			if x.events("throttled", quota) != nil {
				return ""
			}
			round()
			return "no event throttled " + quota
		})
		x.told("throttled", quota)
		x.quota(`{}`)
		x.withinTime(soon, func() string {
			if took := round(); took >= freely {
				return fmt.Sprintf("%d messages of %d bytes in %v, without the quota", messages, size, took)
			}
			return ""
		})
	}
}

// sends publishes at QoS 1 and waits for the answers.
func (d *device) sends(messages int, payload string) {
	d.x.Helper()
	for range messages {
		d.publishAll("t", payload)
	}
}

// gets has another client publish at QoS 1, and waits for all of it.
func (d *device) gets(messages int, payload string) {
	d.x.Helper()
	if !d.listens {
		d.listens = true
		d.subscribe("got", 1, 0)
	}
	other := d.x.device()
	defer func() { _ = other.c.Close() }()
	for range messages {
		other.publishAll("got", payload)
	}
	for range messages {
		d.ack(packet.PUBACK, d.want(packet.PUBLISH).Publish.PacketID)
	}
}
