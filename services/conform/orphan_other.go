// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conform

import "syscall"

// NoOrphan does nothing where a parent's death is not told.
func NoOrphan() *syscall.SysProcAttr { return nil }
