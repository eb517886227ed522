// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// DeviceRequest is the body of PUT …/devices/{device}.
type DeviceRequest struct {
	Attributes map[string]string `json:"attributes,omitempty" doc:"At most 32; names of 1 to 64 letters, digits, '-', '_' and '.', values of at most 256 bytes."`
	Groups     []string          `json:"groups,omitempty" doc:"At most 32; names as those of attributes."`
}

// NamedDevice is a device of an import.
type NamedDevice struct {
	Name string `json:"name" doc:"The user name of the client, after authentication." example:"press-7"`
	DeviceRequest
}

// Device is a device of the registry.
type Device struct {
	NamedDevice
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// DeviceList is a page of devices.
type DeviceList struct {
	Items []Device `json:"items"`
	Next  *string  `json:"next" doc:"The cursor of the next page; null at the end."`
}

// DeviceImport is the body of POST …/devices:import.
type DeviceImport struct {
	Items []NamedDevice `json:"items" minItems:"1" maxItems:"1000" doc:"The devices; none twice. Those that are there are replaced."`
}

// ImportedDevices is the answer to it.
type ImportedDevices struct {
	Made    int `json:"made"`
	Changed int `json:"changed" doc:"Those that were there."`
}

// Group is a group.
type Group struct {
	Name    string `json:"name"`
	Devices int    `json:"devices" doc:"How many devices are in it."`
}

// GroupList are the groups.
type GroupList struct {
	Items []Group `json:"items"`
	Whole bool    `json:"whole" doc:"Whether all devices are counted: always."`
}

// OfDevice is a request about a device.
type OfDevice struct {
	InTenant
	Device string `path:"device" doc:"The device's name, percent-encoded." example:"press-7"`
}

type (
	listDevicesInput struct {
		InTenant
		Paged
		Group string `query:"group" doc:"Only devices in this group."`
	}
	listDevicesOutput  struct{ Body DeviceList }
	replaceDeviceInput struct {
		OfDevice
		Change
		Body DeviceRequest
	}
	deleteDeviceInput struct {
		OfDevice
		Change
	}
	deviceOutput struct {
		ETag string `header:"ETag"`
		Body Device
	}
	importDevicesInput struct {
		InTenant
		Post
		Body DeviceImport
	}
	importDevicesOutput struct{ Body ImportedDevices }
	groupsOutput        struct{ Body GroupList }
)

func (s *Server) deviceRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Identities"
	register(s, operation("list-devices", http.MethodGet, base+"/devices", tag, "List the devices of a tenant's registry in order of their names"), s.listDevices)
	register(s, operation("get-device", http.MethodGet, base+"/devices/{device}", tag, "Get a device"), s.getDevice)
	register(s, operation("replace-device", http.MethodPut, base+"/devices/{device}", tag, "Make or replace a device"), s.replaceDevice)
	register(s, operation("delete-device", http.MethodDelete, base+"/devices/{device}", tag, "Delete a device; its credentials stay"), s.deleteDevice)
	op := operation("import-devices", http.MethodPost, base+"/devices:import", tag, "Make or replace up to 1,000 devices")
	op.DefaultStatus = http.StatusOK
	register(s, op, s.importDevices)
	op = operation("export-devices", http.MethodGet, base+"/devices:export", tag, "Get every device, one in JSON a line, in order of their names")
	op.Responses = map[string]*huma.Response{"200": {Description: "The devices.", Content: map[string]*huma.MediaType{ndjson: {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	register(s, op, s.exportDevices)
	register(s, operation("list-groups", http.MethodGet, base+"/groups", tag, "List the groups of devices"), s.listGroups)
}

func deviceBody(d *tenancy.Device) Device {
	return Device{NamedDevice{d.Name, DeviceRequest{d.Attributes, d.Groups}}, d.CreatedAt, d.UpdatedAt}
}

func (s *Server) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Devices(ctx, tenantOf(ctx).ID, in.Group, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listDevicesOutput{Body: DeviceList{Items: []Device{}, Next: writeCursor(next)}}
	for _, d := range page {
		out.Body.Items = append(out.Body.Items, deviceBody(d))
	}
	return out, nil
}

func (s *Server) getDevice(ctx context.Context, in *OfDevice) (*deviceOutput, error) {
	d, err := s.store.Device(ctx, tenantOf(ctx).ID, in.Device)
	if err != nil {
		return nil, err
	}
	return &deviceOutput{etag(d.Revision), deviceBody(d)}, nil
}

func (s *Server) replaceDevice(ctx context.Context, in *replaceDeviceInput) (*deviceOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "device "+in.Device)
	if err != nil {
		return nil, err
	}
	like := tenancy.Device{Name: in.Device, Attributes: in.Body.Attributes, Groups: in.Body.Groups}
	if err := like.Normalize(); err != nil {
		return nil, err
	}
	was, err := s.store.Device(ctx, t.ID, in.Device)
	var before any
	switch {
	case err == nil:
		before = deviceBody(was)
		err = matches(rev, was.Revision, "device "+in.Device)
	case errs.Is(err, errs.NotFound) && rev != 0:
		err = matches(rev, 0, "device "+in.Device)
	case errs.Is(err, errs.NotFound):
		err = s.store.CheckDevices(ctx, t, 1)
	}
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &deviceOutput{Body: deviceBody(&like)}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "device "+in.Device, before); err != nil {
		return nil, err
	}
	was, now, err := s.store.PutDevice(ctx, t, like, rev)
	if err != nil {
		return nil, err
	}
	if before = nil; was != nil {
		before = deviceBody(was)
	} else {
		s.uses(ctx, t, "devices", 1, s.store.CountDevices)
	}
	return &deviceOutput{etag(now.Revision), deviceBody(now)}, changed(ctx, before, deviceBody(now))
}

func (s *Server) deleteDevice(ctx context.Context, in *deleteDeviceInput) (*struct{}, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "device "+in.Device)
	if err != nil {
		return nil, err
	}
	d, err := s.store.Device(ctx, t.ID, in.Device)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, d.Revision, "device "+in.Device); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "device "+in.Device, deviceBody(d)); err != nil {
		return nil, err
	}
	was, err := s.store.RemoveDevice(ctx, t.ID, in.Device, rev)
	if err != nil {
		return nil, err
	}
	return nil, changed(ctx, deviceBody(was), nil)
}

func (s *Server) importDevices(ctx context.Context, in *importDevicesInput) (*importDevicesOutput, error) {
	t := tenantOf(ctx)
	all := make([]tenancy.Device, len(in.Body.Items))
	seen := map[string]bool{}
	for n, i := range in.Body.Items {
		all[n] = tenancy.Device{Name: i.Name, Attributes: i.Attributes, Groups: i.Groups}
		if err := all[n].Normalize(); err != nil {
			return nil, errs.Coded(errs.Invalid, "import_invalid", "items[%d]: %w", n, err)
		}
		if seen[i.Name] {
			return nil, errs.Coded(errs.Invalid, "import_invalid", "items[%d]: the device %q is there twice", n, i.Name)
		}
		seen[i.Name] = true
	}
	out := &importDevicesOutput{}
	if in.DryRun {
		unchanged(ctx)
		return out, nil
	}
	if err := change(ctx, t.Organization, t.ID, fmt.Sprintf("import of %d devices", len(all)), nil); err != nil {
		return nil, err
	}
	for n := range all {
		was, _, err := s.store.PutDevice(ctx, t, all[n], 0)
		switch {
		case err != nil && n > 0: // which must be recorded
			return nil, errs.New(errs.Unavailable, "%d of %d devices are made or replaced; import them again when the cause is gone: %w", n, len(all), err)
		case err != nil:
			return nil, err
		case was == nil:
			out.Body.Made++
		default:
			out.Body.Changed++
		}
	}
	s.uses(ctx, t, "devices", int64(out.Body.Made), s.store.CountDevices)
	s.log.Info("devices imported", "tenant", t.ID, "made", out.Body.Made, "changed", out.Body.Changed)
	return out, changed(ctx, nil, out.Body)
}

func (s *Server) exportDevices(_ context.Context, in *tenantInput) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", ndjson)
		hc.SetHeader("Content-Disposition", `attachment; filename="devices-`+in.Tenant+`.ndjson"`)
		r, w := humachi.Unwrap(hc)
		rc := http.NewResponseController(w)
		for cursor := ""; ; {
			_ = rc.SetWriteDeadline(s.now().Add(exportStall)) // not everywhere
			page, next, err := s.store.Devices(r.Context(), in.Tenant, "", cursor, 1000)
			for n := 0; err == nil && n < len(page); n++ {
				err = json.NewEncoder(w).Encode(deviceBody(page[n]))
			}
			if err != nil {
				s.log.Error("devices not exported whole", "tenant", in.Tenant, "error", err)
				panic(http.ErrAbortHandler) // an end without a mark would look whole
			}
			if cursor = next; next == "" {
				return
			}
		}
	}}, nil
}

func (s *Server) listGroups(ctx context.Context, _ *tenantInput) (*groupsOutput, error) {
	n, err := s.store.Groups(ctx, tenantOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	out := &groupsOutput{Body: GroupList{Items: []Group{}, Whole: true}}
	for _, name := range slices.Sorted(maps.Keys(n)) {
		out.Body.Items = append(out.Body.Items, Group{name, n[name]})
	}
	return out, nil
}
