// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/bustest"
	"github.com/manormq/manor/infra/bus/mem"
)

func TestBus(t *testing.T) {
	bustest.Run(t, func(*testing.T) bus.Bus { return mem.New() })
}
