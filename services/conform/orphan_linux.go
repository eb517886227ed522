// SPDX-License-Identifier: Apache-2.0

package conform

import "syscall"

// noOrphan has the kernel end a product whose test was killed. It is told of
// the death of a thread, and Go ends none that a test runs on before its
// process.
func noOrphan() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
