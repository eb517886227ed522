// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conform

import "syscall"

// noOrphan does nothing where a parent's death is not told.
func noOrphan() *syscall.SysProcAttr { return nil }
