// SPDX-License-Identifier: Apache-2.0

// Package statements holds the normative statements of MQTT 3.1.1 and 5.0, in
// our words and by the numbers of the specifications, and finds who cites them:
// the code that implements a statement and the tests that check it. Its own
// test makes docs/conformance.md of that. It knows nothing of the product but
// where its files are, owns no goroutine, and is for tests and tools only.
//
// A citation is written [MQTT-3.3.1-2], or MQTT-3.3.1-2 in data, or _MQTT_3_3_1_2
// in the name of a test. Neighbours may be named by their last number alone:
// [MQTT-3.1.2-24, -25] and [MQTT-3.3.2-8 to -12]. The two versions number most
// statements differently, so a number alone is the one of 5.0; it is that of
// 3.1.1 too where both ask the same under it, and that of 3.1.1 alone where 5.0
// has no such number. [MQTT-3.1.2-22 of 3.1.1] and _MQTT_3_1_2_22_V311 say 3.1.1,
// [… of 5.0] and _V5 say 5.0.
package statements
