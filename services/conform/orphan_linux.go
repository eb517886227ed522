// SPDX-License-Identifier: Apache-2.0

package conform

import "syscall"

// NoOrphan has the kernel end a process whose test was killed. It is told of
// the death of a thread, and Go ends none that a test runs on before its
// process.
func NoOrphan() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
