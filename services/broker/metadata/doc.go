// SPDX-License-Identifier: Apache-2.0

// Package metadata keeps what every broker of a region must know (routes, the
// placement of tenants, settings of the cluster) on each of them: key spaces that
// are replicated by server wide clocks (package swc) over the brokers' own links,
// with no master and nothing kept of what was deleted.
//
// The keys are spread over groups. Each has its own clock, so that exchanges run
// side by side and stay small. In a group:
//
//   - A write gets the next dot of this broker. Object, clock and key map are
//     written in one batch; then it is acknowledged, and told to all reachable
//     members together with what else was written in that turn.
//   - Every 2 s, and when something is seen to be missing, a group sends its clock
//     to one member, which answers with the objects behind the dots that are not in
//     it. Two messages say that two brokers are equal.
//   - Who asks for a dot that all members had fetches everything: it is new.
//   - Of concurrent values the one of the highest rank is seen; all are kept until
//     one is written that has seen them, as each broker must keep the same ones.
//   - A delete leaves its dot in the key map. When every member is known to know
//     it, that goes too. Who has left for good is not waited for.
//   - A store that lost data goes on under a new actor. The old one keeps a place in
//     each clock, about 12 bytes, for ever, and its values stay.
//
// Machine is the pure part: Events in, Effects out, reading from a kv.Store. Store
// is the shell, and owns the only goroutine, its Run; callbacks come from there. The
// package owns the keys that begin with FF FF 6D. It must not know what the values
// mean, how members are found, or what carries its messages.
package metadata
