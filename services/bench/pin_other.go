// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package bench

// pinned calls start: processors are not chosen on this system.
func pinned(_ bool, start func() error) error { return start() }
