// SPDX-License-Identifier: Apache-2.0

//go:build race

package loop

// The race detector takes what is read for ordered behind what was written, but
// only with system calls that it hears of.
const raceEnabled = true
