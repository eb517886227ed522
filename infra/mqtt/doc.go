// SPDX-License-Identifier: Apache-2.0

// Package mqtt is the vocabulary of MQTT 5 that every floor shares: messages,
// qualities of service, reason codes, subscriptions and wills. It knows no
// bytes on a network, no clock and no role; the encoding of packets is
// infra/packet's. Nothing here owns a goroutine, and every type is a plain
// value: who may use it concurrently is said where it is kept.
package mqtt
