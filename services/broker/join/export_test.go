// SPDX-License-Identifier: Apache-2.0

package join

import "context"

// RenewNow asks once.
func RenewNow(ctx context.Context, r *Renewer) error { return r.renew(ctx) }
