// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/manormq/manor/infra/errs"
)

// worldWrites is the permission that lets everybody write.
const worldWrites fs.FileMode = 0o002

// read returns the text, as it was at the last look. The error is Invalid, or Unavailable, and says
// what to do; it has no path, since tenants see it. Links are followed within the tenant's
// folder alone: what is wrong with a file is quoted to the tenant, whose programs may be
// who writes the folder.
func (f *file) read() (string, error) {
	dir, err := os.OpenRoot(filepath.Dir(f.path))
	if err != nil {
		return "", f.unread(err)
	}
	defer dir.Close()
	switch info, err := dir.Stat("."); {
	case err != nil:
		return "", f.unread(err)
	case info.Mode()&worldWrites != 0:
		return "", errs.New(errs.Invalid, "%s: expected a folder that not everybody may write (chmod o-w), found the mode %04o", f.name, info.Mode().Perm())
	}
	switch info, err := dir.Stat(f.name); {
	case err != nil:
		if now, lerr := dir.Lstat(f.name); lerr == nil && now.Mode().Type() == fs.ModeSymlink && !os.IsPermission(err) {
			return "", errs.New(errs.Invalid, "%s: expected a file in the folder, found a link that leads out of it, or to nothing; write a copy instead", f.name)
		}
		return "", f.unread(err)
	case !info.Mode().IsRegular():
		return "", errs.New(errs.Invalid, "%s: expected a regular file, found %s", f.name, info.Mode().Type())
	case info.Mode()&worldWrites != 0:
		return "", errs.New(errs.Invalid, "%s: expected a file that not everybody may write (chmod o-w), found the mode %04o", f.name, info.Mode().Perm())
	case info.Size() > f.most:
		return "", errs.New(errs.Invalid, "%s: expected at most %d bytes, found %d", f.name, f.most, info.Size())
	case info.Size() == 0:
		return "", errs.New(errs.Invalid, "%s is empty, which may be a file that is being written; a line with # alone stands for nothing at all", f.name)
	}
	// A pipe that takes its place now does not hold up who opens it.
	h, err := dir.OpenFile(f.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", f.unread(err)
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil || !same(f.seen, info) {
		return "", f.moving()
	}
	b, err := io.ReadAll(io.LimitReader(h, f.most+1))
	if err != nil {
		return "", f.unread(err)
	}
	if now, err := dir.Stat(f.name); err != nil || !same(f.seen, now) || int64(len(b)) != now.Size() {
		return "", f.moving()
	}
	return string(b), nil
}

func (f *file) moving() error {
	return errs.Coded(errs.Unavailable, codeMoving, "%s has changed while it was read", f.name)
}

// unread is why a file could not be read, without its path.
func (f *file) unread(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return errs.New(errs.Invalid, "%s is gone; what came from it stays", f.name)
	case errors.Is(err, fs.ErrPermission):
		return errs.New(errs.Invalid, "%s: tenancyd, which runs as user %d, is not permitted to read it", f.name, os.Getuid())
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return errs.New(errs.Unavailable, "%s: %w", f.name, err)
}
