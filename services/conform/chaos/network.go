// SPDX-License-Identifier: Apache-2.0

package chaos

import "testing"

type network struct{}

func newNetwork(testing.TB, []*Node) *network { return nil }
