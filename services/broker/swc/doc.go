// SPDX-License-Identifier: Apache-2.0

// Package swc is the algebra of server wide clocks: what a broker knows of all
// writes of all brokers, in a few bytes, and what an object must remember beside
// it. The words are those of Gonçalves, Almeida, Baquero and Fonte, "DottedDB:
// Anti-Entropy without Merkle Trees, Deletes without Tombstones", SRDS 2017.
//
//   - An Actor is who writes, a Dot one write of one actor.
//   - A Vector says of each actor up to which dot something is known without gaps.
//   - A Clock is what a broker knows: a Vector, and single dots above it.
//   - A Container is an object: its concurrent values, each with the dot that wrote
//     it, and the context of all dots that it has seen.
//   - A Watermark is what each member is known to know. A dot that all members know
//     is settled: nobody will ask which key it wrote.
//
// A broker keeps for each dot which key it wrote until the dot is settled. That
// map is the one part that grows, while a member is away; so it lives in the
// store of its owner, which is package metadata, in the order of AppendDot.
//
// One promise ties clock and objects together, and the owner of both keeps it: a
// dot that is in the clock is reflected in the object of its key. So an object need
// not say what the clock says (Strip), and a key without object is one whose
// values were all deleted, as far as the clock reaches (Fill).
//
// The package has no goroutine, no time, no randomness and no I/O. It must not know
// keys, members' names or how clocks travel. Its values are owned by one goroutine
// at a time.
package swc
