// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
)

func runProcesses(context.Context, *options, []process, *authority, *slog.Logger, io.Writer, func()) error {
	return errors.New("not yet")
}
