// SPDX-License-Identifier: Apache-2.0

// Package link is the conversation between a gateway and a broker in MQTT's
// words: batches of frames about channels. A channel is the image on the link
// of one client's network connection.
//
// Frames travel only inside batches; a batch is what one turn of one side
// collected. Frames of one channel keep their order in each direction; there
// is no order across channels. A batch refers to nothing in an earlier batch.
// The tenant is bound to a channel by its Open frame, so that no later frame
// can name another.
//
// In one process a batch is handed over by pointer and nothing is serialised
// (see Direct's implementers: the broker's Attach). Between processes the
// codec of this package writes it on infra/wire; the layout is drawn in
// docs/wire/link.md.
//
// Bytes in a batch are views. Whoever receives a batch copies what it keeps
// before it returns.
package link
