// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import "syscall"

func duplicate(uintptr) (int, error) { return -1, syscall.ENOSYS }
