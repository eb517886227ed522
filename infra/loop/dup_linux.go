// SPDX-License-Identifier: Apache-2.0

package loop

import "golang.org/x/sys/unix"

func duplicate(fd uintptr) (int, error) { return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }
