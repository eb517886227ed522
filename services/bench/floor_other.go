// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package bench

import (
	"context"

	"github.com/manormq/manor/infra/errs"
)

func serveFloor(context.Context, string) error {
	return errs.New(errs.Unavailable, "manor bench floor needs Linux: it is made of epoll")
}
