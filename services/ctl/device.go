// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// devicesAtOnce is how many devices one call of the API takes.
const devicesAtOnce = 1000

func device() *cobra.Command {
	var group string
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the devices of the registry",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Device], error) {
				return c.Devices(ctx, args[0], append(o, client.Query("group", group))...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "DEVICE GROUPS ATTRIBUTES CHANGED", func(d client.Device) []any {
				return []any{d.Name, strings.Join(d.Groups, ","), len(d.Attributes), day(&d.UpdatedAt)}
			})
		},
	}
	list.Flags().StringVar(&group, "group", "", "only those in this group")
	var in client.DeviceAbout
	set := &cobra.Command{
		Use:   "set TENANT DEVICE",
		Short: "make or replace a device",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			d, err := c.ReplaceDevice(cmd.Context(), args[0], args[1], in)
			if err != nil {
				return err
			}
			return write(cmd, d, d.Name+" is in "+scopeOf(d.Groups))
		},
	}
	set.Flags().StringSliceVar(&in.Groups, "group", nil, "the groups that it is in")
	set.Flags().StringToStringVar(&in.Attributes, "attribute", nil, "its attributes, such as hall=3")
	show := &cobra.Command{
		Use:   "show TENANT DEVICE",
		Short: "show a device",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			d, err := c.Device(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return write(cmd, d, fmt.Sprintf("%s is in %s, with %s", d.Name, scopeOf(d.Groups), attributesOf(d.Attributes)))
		},
	}
	remove := &cobra.Command{
		Use:   "delete TENANT DEVICE",
		Short: "delete a device from the registry; its credentials stay",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteDevice(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, args[1]+" is deleted")
		},
	}
	groups := &cobra.Command{
		Use:   "groups TENANT",
		Short: "list the groups of devices",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := c.Groups(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return writeList(cmd, all.Items, "GROUP DEVICES", func(g client.Group) []any { return []any{g.Name, g.Devices} })
		},
	}
	export := &cobra.Command{
		Use:   "export TENANT",
		Short: "write every device, one in JSON a line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			r, err := c.ExportDevices(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			_, err = io.Copy(cmd.OutOrStdout(), r)
			return errors.Join(err, r.Close())
		},
	}
	c := ofAPI(&cobra.Command{Use: "device", Short: "what is known of devices, and in which groups they are"})
	c.AddCommand(list, set, show, remove, groups, export, importDevices())
	return c
}

func scopeOf(groups []string) string {
	if len(groups) == 0 {
		return "no group"
	}
	return strings.Join(groups, ", ")
}

func attributesOf(all map[string]string) string {
	if len(all) == 0 {
		return "no attributes"
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, name+"="+all[name])
	}
	return strings.Join(list, ", ")
}

func importDevices() *cobra.Command {
	return &cobra.Command{
		Use:   "import TENANT FILE",
		Short: "make or replace the devices of a file as export writes it (- is standard input)",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[1] != "-" {
				file, err := os.Open(args[1])
				if err != nil {
					return errs.New(errs.Invalid, "%w", err)
				}
				defer func() { _ = file.Close() }()
				in = file
			}
			var all []client.NamedDevice
			lines := json.NewDecoder(in)
			for {
				var d client.Device // of which the times are not taken
				err := lines.Decode(&d)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return errs.New(errs.Invalid, "device %d: expected JSON: %w", len(all)+1, err)
				}
				all = append(all, d.NamedDevice)
			}
			if len(all) == 0 {
				return errs.New(errs.Invalid, "expected lines with devices in JSON")
			}
			var sum client.ImportedDevices
			for len(all) > 0 {
				n := min(len(all), devicesAtOnce)
				got, err := c.ImportDevices(cmd.Context(), args[0], client.DeviceImport{Items: all[:n]})
				if err != nil {
					return err
				}
				sum.Made, sum.Changed, all = sum.Made+got.Made, sum.Changed+got.Changed, all[n:]
			}
			return write(cmd, sum, fmt.Sprintf("%d made, %d replaced", sum.Made, sum.Changed))
		},
	}
}
