// SPDX-License-Identifier: Apache-2.0

// Package conform tests the product from outside, as its clients and its
// crashes see it: real clients of others against every listener, kill -9 in the
// middle of load, tenants beside each other. It starts manor dev as a process
// of its own, speaks raw MQTT 3.1.1 where a client library would hide what it
// looks for, and shares no code with the product. It owns what it starts until
// the end of the test.
package conform
