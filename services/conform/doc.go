// SPDX-License-Identifier: Apache-2.0

// Package conform tests the product from outside, as its clients and its
// crashes see it: real clients of others against every listener, kill -9 in the
// middle of load, tenants beside each other. It starts manor dev as a process
// of its own, and speaks raw MQTT 3.1.1 where a client library would hide what
// it looks for. It owns what it starts until the end of the test.
//
// Its packages: script runs conversations that hold any broker to the
// specification; wire is their codec and shares no code with the product's;
// statements knows what the specification says, and who cites it.
package conform
