// SPDX-License-Identifier: Apache-2.0

package conform

import "testing"

// BuiltPrograms is the folder with the programs that tests of this package have built.
func BuiltPrograms(t testing.TB) string { return Programs(t, built) }
