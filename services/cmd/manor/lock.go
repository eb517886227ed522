// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/manormq/manor/infra/errs"
)

// lockFolder makes the data folder and holds it for this process, until unlock
// or the end of the process.
func lockFolder(data string) (unlock func(), err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errs.New(errs.Unavailable, "another manor dev uses the folder %s: stop it, or choose another with --data (and ports with --listen-offset)", data)
	}
	return func() { _ = f.Close() }, nil
}
