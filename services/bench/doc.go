// SPDX-License-Identifier: Apache-2.0

// Package bench is a load generator for MQTT 3.1.1 and 5, and the comparison of
// Manor with other brokers that is made of it.
//
// It writes raw packets of its own, so that it shares no code with what it
// measures, and knows a broker by its address and process ids only. Its robust
// figure is the broker's CPU time for each delivered message, read from /proc:
// on a busy machine it moves far less than message rates do.
//
// The comparison knows more of Manor: it starts manor dev, writes tenants into its
// store before, and reads pauses of garbage collection from its operator
// listeners.
//
// The floor ("manor bench floor -addr HOST:PORT", Linux only) is a broker without
// anything that a broker is for: event loops, topics by hash, bytes forwarded as
// they came. Machines differ in what a system call costs beside all else, so
// that a broker with one for each message is no measure for others; the floor is.
//
// Run and Compare own every goroutine and process that they start, and end
// them before they return.
package bench
