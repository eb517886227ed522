// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"time"
)

// DeviceAbout is what a registry says of a device.
type DeviceAbout struct {
	Attributes map[string]string `json:"attributes,omitempty"`
	Groups     []string          `json:"groups,omitempty"`
}

// NamedDevice is a device of an import.
type NamedDevice struct {
	Name string `json:"name"`
	DeviceAbout
}

// Device is a device of the registry.
type Device struct {
	NamedDevice
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// DeviceImport makes or replaces devices.
type DeviceImport struct {
	Items []NamedDevice `json:"items"`
}

// ImportedDevices says how many were made, and how many were there.
type ImportedDevices struct {
	Made    int `json:"made"`
	Changed int `json:"changed"`
}

// Group is a group of devices.
type Group struct {
	Name    string `json:"name"`
	Devices int    `json:"devices"`
}

// Groups are all groups; Whole says that all devices were looked at.
type Groups struct {
	Items []Group `json:"items"`
	Whole bool    `json:"whole"`
}

// Devices lists devices; Query("group", …) limits them to a group.
func (c *Client) Devices(ctx context.Context, tenant string, o ...Option) (*Page[Device], error) {
	return ask[Page[Device]](ctx, c, "list-devices", []string{"tenant", tenant}, nil, o)
}

// Device gets a device.
func (c *Client) Device(ctx context.Context, tenant, name string) (*Device, error) {
	return ask[Device](ctx, c, "get-device", []string{"tenant", tenant, "device", name}, nil, nil)
}

// ReplaceDevice makes or replaces a device.
func (c *Client) ReplaceDevice(ctx context.Context, tenant, name string, in DeviceAbout, o ...Option) (*Device, error) {
	return ask[Device](ctx, c, "replace-device", []string{"tenant", tenant, "device", name}, in, o)
}

// DeleteDevice deletes a device.
func (c *Client) DeleteDevice(ctx context.Context, tenant, name string, o ...Option) error {
	return c.call(ctx, "delete-device", []string{"tenant", tenant, "device", name}, nil, nil, o)
}

// ImportDevices makes or replaces up to 1,000 devices.
func (c *Client) ImportDevices(ctx context.Context, tenant string, in DeviceImport, o ...Option) (*ImportedDevices, error) {
	return ask[ImportedDevices](ctx, c, "import-devices", []string{"tenant", tenant}, in, o)
}

// ExportDevices returns every device, one in JSON a line; the caller closes it. Read
// with an error it was not whole.
func (c *Client) ExportDevices(ctx context.Context, tenant string) (io.ReadCloser, error) {
	return c.open(ctx, "export-devices", []string{"tenant", tenant}, nil, nil)
}

// Groups lists the groups of devices.
func (c *Client) Groups(ctx context.Context, tenant string) (*Groups, error) {
	return ask[Groups](ctx, c, "list-groups", []string{"tenant", tenant}, nil, nil)
}
