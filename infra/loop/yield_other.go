// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import "runtime"

// Yield is a pause of a goroutine that always has work.
type Yield struct{}

// Now lets others run.
func (*Yield) Now() { runtime.Gosched() }

// Close does nothing.
func (*Yield) Close() {}
