// SPDX-License-Identifier: Apache-2.0

// Package bench is a load generator for MQTT 3.1.1 brokers, and the comparison
// of Manor with mosquitto that is made of it.
//
// It writes raw packets of its own, so that it shares no code with what it
// measures, and knows a broker by its address and process ids only. Its robust
// figure is the broker's CPU time for each delivered message, read from /proc:
// on a busy machine it moves far less than message rates do.
//
// Run and Compare own every goroutine and process that they start, and end
// them before they return.
package bench
