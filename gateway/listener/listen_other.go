// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package listener

import "net"

// inherit leaves it to package net to tell each socket of keep alive.
func inherit(*net.ListenConfig) {}
