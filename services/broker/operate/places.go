// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// What operators say of where things belong.

func partitionLabel(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	ids, err := numbers(args.Get("partitions"))
	if err != nil {
		return nil, err
	}
	label := args.Get("label")
	if label == "" {
		return nil, errs.New(errs.Invalid, "expected a label that brokers accept; shared is that of partitions of which nobody has said one")
	}
	replicas := 0
	if args.Has("replicas") {
		if replicas, err = strconv.Atoi(args.Get("replicas")); err != nil || replicas < 1 {
			return nil, errs.New(errs.Invalid, "expected --replicas of 1 or more, found %q", args.Get("replicas"))
		}
	}
	if err := c.SetClass(ctx, ids, label, replicas); err != nil {
		return nil, err
	}
	return []Element{Text(fmt.Sprintf("the partitions %s are for brokers that accept the label %s: they move there by themselves, with all that is in them. "+
		`"cluster rebalance" says what is left`, ranges(ids), label))}, nil
}

// numbers reads what ranges writes: 0-3,7. The error is Invalid.
func numbers(text string) (ids []int, err error) {
	bad := errs.New(errs.Invalid, "expected partitions such as 4 or 0-3,7; found %q", text)
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, bad
		}
		b := a
		if isRange {
			if b, err = strconv.ParseUint(last, 10, 16); err != nil || b < a {
				return nil, bad
			}
		}
		for ; a <= b; a++ {
			ids = append(ids, int(a))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func tenantShow(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	want, purged := args.Get("tenant"), 0
	var rows []Row
	for _, p := range c.Placements() {
		switch {
		case want != "" && p.Tenant != want:
		case want == "" && p.Purged && !args.Has("purged"):
			purged++
		default:
			rows = append(rows, placementRow(&p))
		}
	}
	if want != "" && len(rows) == 0 {
		return []Element{Text(fmt.Sprintf("%s has no record: it lives in all partitions that are not reserved, or has not been here yet", want))}, nil
	}
	out := []Element{Table(rows)}
	if purged > 0 {
		out = append(out, Text(fmt.Sprintf("purged tenants of which a record stays, whose revision only grows: %d; --purged lists them", purged)))
	}
	if want == "" {
		return out, nil
	}
	if p := c.Progress(ctx, want); p.Stage != "" {
		out = append(out, Text(fmt.Sprintf("%d sessions and %d retained messages are left; it waits for %s", p.Sessions, p.Retained, p.Waits)))
	}
	return out, nil
}

func placementRow(p *Placement) Row {
	by, where := "plan", ranges(p.Partitions)
	if p.Placed {
		by = "operator"
	}
	switch {
	case p.Purged:
		by, where = "purge", "none, or as its plan has it if it was made again"
	case len(p.Partitions) == 0:
		by, where = "plan", "as its plan has it"
	}
	stage := p.Stage
	if len(p.To) > 0 {
		stage += " for " + ranges(p.To)
	}
	return Row{{"Tenant", p.Tenant}, {"Partitions", where}, {"By", by}, {"Revision", p.Revision}, {"Moves", stage}}
}

func tenantPlace(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	tenant := args.Get("tenant")
	if tenant == "" {
		return nil, errs.New(errs.Invalid, "expected the id of a tenant")
	}
	ways := 0
	for _, way := range []string{"partitions", "dedicated", "shared", "grow"} {
		if args.Has(way) {
			ways++
		}
	}
	if ways != 1 {
		return nil, errs.New(errs.Invalid, "expected one of --partitions LIST, --dedicated LABEL, --shared and --grow N")
	}
	to := Place{Label: args.Get("dedicated")}
	var err error
	if args.Has("partitions") {
		if to.Partitions, err = numbers(args.Get("partitions")); err != nil {
			return nil, err
		}
	}
	if args.Has("grow") {
		if to.Grow, err = strconv.Atoi(args.Get("grow")); err != nil || to.Grow < 1 {
			return nil, errs.New(errs.Invalid, "expected --grow of 1 or more, found %q", args.Get("grow"))
		}
	}
	p, err := c.Place(ctx, tenant, to)
	if err != nil {
		return nil, err
	}
	out := []Element{Table([]Row{placementRow(&p)})}
	if p.Stage != "" {
		out = append(out, Text("it goes on by itself, and its clients wait: look at tenant show"))
	}
	var with []string
	for _, o := range c.Placements() {
		if o.Tenant != tenant && slices.ContainsFunc(o.Partitions, func(id int) bool { return slices.Contains(p.Partitions, id) }) {
			with = append(with, o.Tenant)
		}
	}
	if len(with) > 0 {
		out = append(out, Text(fmt.Sprintf("%d other tenants have some of these partitions: %s", len(with), strings.Join(with[:min(len(with), 5)], ", "))))
	}
	return out, nil
}

func configShow(_ context.Context, c Cluster, _ url.Values) ([]Element, error) {
	var rows []Row
	for _, s := range c.Settings() {
		by := "default"
		if s.Set {
			by = "operator"
		}
		rows = append(rows, Row{{"Name", s.Name}, {"Value", s.Value}, {"By", by}, {"Least", s.Least}, {"Most", s.Most}, {"What", s.Doc}})
	}
	return []Element{Table(rows)}, nil
}

func configSet(ctx context.Context, c Cluster, args url.Values) ([]Element, error) {
	name, value := args.Get("name"), args.Get("value")
	if err := c.Set(ctx, name, value); err != nil {
		return nil, err
	}
	return []Element{Text(fmt.Sprintf("%s is %s on all brokers that can be reached; the others have it when they are back", name, value))}, nil
}
