// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package bench

import "syscall"

func bindLate(string, string, syscall.RawConn) error { return nil }
