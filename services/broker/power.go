// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"github.com/manormq/manor/infra/kv"
)

// bootKey stands above all partitions and has the boot of the machine in which the
// store was last opened and found whole.
var bootKey = []byte{0xFF, 0xFF, 'b'}

// bootFile has a new random number at each boot of Linux.
const bootFile = "/proc/sys/kernel/random/boot_id"

// boot names the boot of this machine, empty if the system does not say.
func boot() []byte {
	b, err := os.ReadFile(bootFile)
	if err != nil {
		return nil
	}
	return []byte(strings.TrimSpace(string(b)))
}

// powerLost reports whether writes that were done may be gone from the store, since
// the machine was started anew after them: what a process that was killed has written
// is there. Without a name of the boot it says yes, unless the store is new.
func powerLost(store kv.Store, boot []byte) (bool, error) {
	v, err := store.Get(bootKey)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		_, err := store.Get(partitionsKey)
		if errors.Is(err, kv.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	case err != nil:
		return false, err
	}
	return len(boot) == 0 || !bytes.Equal(v, boot), nil
}

// noteBoot stores that everything up to now is on the disk of this boot.
func noteBoot(store kv.Store, boot []byte) error {
	var b kv.Batch
	b.Put(bootKey, boot)
	return store.Apply(&b, true)
}
