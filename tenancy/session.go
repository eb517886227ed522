// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// SessionOverride is what authentication says about one session: settings that
// replace its tenant's, and quotas that are narrower than its tenant's. It is
// immutable once it was handed out.
type SessionOverride struct {
	Settings *SettingsOverride `json:"settings,omitempty"`
	Quotas   map[string]int64  `json:"quotas,omitempty"`
}

// sessionQuotas are the quotas that authentication may narrow for one session:
// those that a session or a connection has for itself.
var sessionQuotas = []string{
	"packet_size", "topic_length", "topic_levels", "topic_level_length", "topic_alias_maximum", "receive_maximum",
	"subscriptions_client", "subscriptions_request", "session_expiry", "queue_messages", "queue_bytes", "will_delay", "will_size", "wildcard_root",
}

// tenantOnly names a setting of o that is no session's, if there is one.
func (o *SettingsOverride) tenantOnly() string {
	switch {
	case o.ServerReference != nil, o.ServerReferencePermanent != nil:
		return "server_reference"
	case o.MaxClientIDSize != nil:
		return "max_client_id_size"
	}
	return ""
}

// Valid checks o. The error is Invalid, with Code "setting_invalid",
// "quota_unknown" or "limit_invalid".
func (o *SessionOverride) Valid() error {
	if o == nil {
		return nil
	}
	if err := o.Settings.Valid(); err != nil {
		return err
	}
	if o.Settings != nil {
		if name := o.Settings.tenantOnly(); name != "" {
			return errs.Coded(errs.Invalid, "setting_invalid", "the setting %s is the tenant's, and no single session's", name)
		}
	}
	for name, v := range o.Quotas {
		if !slices.Contains(sessionQuotas, name) {
			return errs.Coded(errs.Invalid, "quota_unknown", "expected one of the quotas %s of a session, found %q", strings.Join(sessionQuotas, ", "), name)
		}
		if err := ValidLimit(name, v); err != nil {
			return err
		}
	}
	return nil
}

// Rules are what holds for a session of t, of which authentication said o: the
// tenant's limits, narrowed, and its settings, replaced.
func (t *Tenant) Rules(o *SessionOverride) (Limits, Settings) {
	limits, settings := t.Limits, t.Settings.Over(defaultSettings)
	if o == nil {
		return limits, settings
	}
	for name, v := range o.Quotas {
		if q := findQuota(name); q != nil && v >= 0 {
			if now := q.field(&limits); *now < 0 || v < *now {
				*now = v
			}
		}
	}
	return limits, o.Settings.Over(settings)
}
