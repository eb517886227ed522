// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C
// reaches manor dev only, which stops its children in order; and have the
// kernel kill it when manor dev is gone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
