// SPDX-License-Identifier: Apache-2.0

package main

func (r *region) tenancy(config section, p *process, identity section) {
	_, _, _ = config, p, identity
}
