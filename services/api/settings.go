// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Setting is one setting of a tenant.
type Setting struct {
	Name    string `json:"name" example:"queue_type"`
	Value   any    `json:"value" doc:"What holds for sessions whose credential says nothing else."`
	Default any    `json:"default"`
	Source  string `json:"source" enum:"default,tenant"`
	VerneMQ string `json:"vernemq,omitempty" doc:"What VerneMQ calls it." example:"queue_type"`
}

// SettingList is the answer to GET and PUT of settings.
type SettingList struct {
	Items []Setting `json:"items"`
}

type settingsOutput struct {
	ETag string `header:"ETag"`
	Body SettingList
}

type settingsInput struct {
	InTenant
	Change
	Body tenancy.SettingsOverride `doc:"Settings; one that is missing goes back to its default."`
}

func (s *Server) settingRoutes() {
	const base = "/v1/tenants/{tenant}/settings"
	register(s, operation("list-settings", http.MethodGet, base, "Tenants", "List the settings of a tenant's sessions"), s.listSettings)
	register(s, operation("replace-settings", http.MethodPut, base, "Tenants",
		"Replace the settings that differ from the defaults; live sessions hear of it within 2 s"), s.replaceSettings)
}

func (s *Server) listSettings(ctx context.Context, _ *tenantInput) (*settingsOutput, error) {
	return settingsBody(tenantOf(ctx)), nil
}

func settingsBody(t *tenancy.TenantRecord) *settingsOutput {
	out := &settingsOutput{ETag: etag(t.Revision)}
	for _, row := range t.Settings.Table() {
		x := Setting{Name: row.Name, Value: row.Value, Default: row.Default, Source: "default", VerneMQ: row.VerneMQ}
		if row.Set {
			x.Source = "tenant"
		}
		out.Body.Items = append(out.Body.Items, x)
	}
	return out
}

func (s *Server) replaceSettings(ctx context.Context, in *settingsInput) (*settingsOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	if err := in.Body.Valid(); err != nil {
		return nil, err
	}
	if in.DryRun {
		if err := matches(rev, t.Revision, "tenant "+t.ID); err != nil {
			return nil, err
		}
		unchanged(ctx)
		t = t.Clone()
		t.Settings = &in.Body
		return settingsBody(t), nil
	}
	if err := change(ctx, t.Organization, t.ID, "settings", t.Settings); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, store.Settings(&in.Body))
	if err != nil {
		return nil, err
	}
	s.log.Info("settings replaced", "tenant", t.ID)
	return settingsBody(now), changed(ctx, was.Settings, now.Settings)
}

// SettingsDocument is docs/settings.md.
func SettingsDocument() []byte {
	var b strings.Builder
	b.WriteString("# Settings of a tenant's sessions\n\n" +
		"Written by `make generate`. `PUT /v1/tenants/{tenant}/settings` replaces those that differ from the defaults, and reaches every gateway and\n" +
		"broker in 2 s, live sessions too, as the last column says. A credential may have settings and quotas of its own (`session` in\n" +
		"`POST …/credentials`, `PUT …/credentials/{username}/session`): its settings replace the tenant's, its quotas hold where they are narrower.\n\n" +
		"| setting | default | VerneMQ's name, default | what it is | what the client is told (3.x) | a change reaches live sessions with |\n|---|---|---|---|---|---|\n")
	for _, row := range (*tenancy.SettingsOverride)(nil).Table() {
		v := "none"
		if row.VerneMQ != "" {
			v = "`" + strings.ReplaceAll(row.VerneMQ, ", ", "`, `") + "`, " + row.VerneMQDefault
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", row.Name, settingText(row.Default), v, row.Doc, row.Told, row.Live)
	}
	b.WriteString(settingsQuotas)
	return []byte(b.String())
}

func settingText(v any) string {
	switch v := v.(type) {
	case string:
		if v == "" {
			return "empty"
		}
		return "`" + v + "`"
	case bool:
		if v {
			return "on"
		}
		return "off"
	case []string:
		return strings.Join(v, ", ")
	}
	return fmt.Sprint(v)
}

// settingsQuotas says which of VerneMQ's settings are quotas here.
const settingsQuotas = `
These of VerneMQ's are quotas here (docs/quotas.md), with the plan's value as default:

| VerneMQ's name, default | quota | |
|---|---|---|
| ` + "`max_offline_messages`, 1000 | `queue_messages`" + ` | messages that wait for a session, at QoS 1 and 2 |
| ` + "`max_subscriptions_per_client`, 0 | `subscriptions_client`" + ` | |
| ` + "`topic_max_depth`, 10 | `topic_levels`" + ` | |
| ` + "`max_message_size`, 0 | `packet_size`" + ` | of the whole packet; CONNACK tells |
| ` + "`persistent_client_expiration`, never | `session_expiry`" + ` | all versions: a 3.x session without clean session has it, MQTT 5's expiry is cut to it |
| ` + "`max_last_will_delay`, client | `will_delay`" + ` | |
| ` + "`receive_max_broker`, 65535 | `receive_maximum`" + ` | |
| ` + "`topic_alias_max_client`, 0 | `topic_alias_maximum`" + ` | |

A change of these reaches live sessions in 2 s too, but for what CONNACK has promised: ` + "`receive_maximum`, `topic_alias_maximum`" + ` and the keep alive.

` + "`retry_interval`" + ` is off by default because TCP loses nothing on a live connection, so that what is sent again only reaches a client that is slow;
MQTT 5 forbids it [MQTT-4.4.0-1].
`
