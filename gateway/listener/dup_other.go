// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package listener

import "syscall"

func duplicate(uintptr) (int, error) { return -1, syscall.ENOSYS }
