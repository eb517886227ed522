// SPDX-License-Identifier: Apache-2.0

package quota

import "github.com/manormq/manor/infra/level"

// Crossing is a resource that has come to a level.
type Crossing struct {
	Resource
	Level level.Level
	Used  float64 // part of the limit, of all gateways
}
