// SPDX-License-Identifier: Apache-2.0

// Package topic holds the rules of topic names and topic filters
// [MQTT-4.7, 4.8] and two structures that answer who matches whom:
//
//   - Trie: filters asked by a name; one changes it while others ask;
//   - Names: names asked by a filter, in order and resumable.
//
// It owns no goroutine and starts none. It knows strings only: no packets, no
// sessions, no tenants. What a value in a Trie means is its owner's business.
package topic
