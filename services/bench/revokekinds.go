// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// revocationKind is something that can be revoked.
type revocationKind struct {
	name string
	// ready makes what a tenant needs for it, once; nil is nothing.
	ready func(*revoker, context.Context) error
	// begin has clients connected that the next revocation is about.
	begin func(v *revoker, ctx context.Context, n int) (*attempt, error)
	// over takes away what ready has made and other kinds must not meet; nil is nothing.
	over func(*revoker, context.Context) error
	// ends is that all clients of the tenant are concerned: else others stay connected.
	ends bool
}

var allRevocations = []revocationKind{
	{name: "credential", begin: (*revoker).credential},
	{name: "certificate", ready: (*revoker).trust, begin: (*revoker).bannedCertificate},
	{name: "revocation list", ready: (*revoker).trust, begin: (*revoker).listedCertificate},
	{name: "policy", ready: (*revoker).firstPolicy, begin: (*revoker).policy, over: (*revoker).noPolicy},
	{name: "plan", ready: (*revoker).publisher, begin: (*revoker).plan},
	{name: "tenant", begin: (*revoker).suspended, ends: true},
}

func revocationKinds() (names []string) {
	for _, k := range allRevocations {
		names = append(names, k.name)
	}
	return names
}

// chosenKinds are the kinds of a list with commas; all if it is empty.
func chosenKinds(list string) (chosen []revocationKind, err error) {
	if list == "" {
		return allRevocations, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(revocationKinds(), strings.TrimSpace(name))
		if i < 0 {
			return nil, errs.New(errs.Invalid, "-kinds: expected some of %s, found %q", strings.Join(revocationKinds(), ", "), name)
		}
		chosen = append(chosen, allRevocations[i])
	}
	return chosen, nil
}

// endings are the effects of a revocation that ends all of these connections, and those
// that come meanwhile.
func endings(all []*held, reason mqtt.ReasonCode) (effects []func(context.Context) (time.Time, error)) {
	for _, h := range all {
		effects = append(effects, h.ends(reason), h.races())
	}
	return effects
}

// credential is one that is deleted.
func (v *revoker) credential(ctx context.Context, n int) (*attempt, error) {
	name := fmt.Sprintf("u-%d", n)
	var made struct {
		Password string `json:"password"`
	}
	if err := v.tenant.call(ctx, v.site, http.MethodPost, "/credentials", map[string]string{"username": name}, &made); err != nil {
		return nil, err
	}
	all, err := v.everywhere(name, login{v.tenant.id + ":" + name, made.Password}, nil)
	if err != nil {
		return nil, err
	}
	return &attempt{
		revoke: func(ctx context.Context) error {
			return v.tenant.call(ctx, v.site, http.MethodDelete, "/credentials/"+name, nil, nil)
		},
		effects: endings(all, mqtt.NotAuthorized),
		undo:    func(context.Context) error { v.drop(all); return nil },
	}, nil
}

// trust has the tenant trust certificates of the CA, and waits until all gateways do.
func (v *revoker) trust(ctx context.Context) error {
	if err := v.setCAs(ctx, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.giveUp)
	defer cancel()
	cert, _, err := v.ca.issue("probe")
	if err != nil {
		return err
	}
	for g := range v.site.Gateways {
		err := until(ctx, func() (bool, error) {
			h, err := v.connect(g, "probe", login{}, cert)
			if err != nil {
				return false, nil //nolint:nilerr // not yet
			}
			v.drop([]*held{h})
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("gateway %d does not take the certificates of a CA that its tenant trusts", g+1)
		}
	}
	return nil
}

// setCAs replaces the CAs of the tenant and their revocation list.
func (v *revoker) setCAs(ctx context.Context, list string) error {
	return v.tenant.call(ctx, v.site, http.MethodPut, "/client-cas", map[string]any{
		"certificates": v.ca.pem(), "crl": list, "use_identity_as_username": "cn", "certificate_authenticates": true,
	}, nil)
}

// withCertificate is an attempt with a new certificate, of whose serial number revoke is
// told.
func (v *revoker) withCertificate(n int, revoke func(ctx context.Context, serial int64) error, reason mqtt.ReasonCode) (*attempt, error) {
	name := fmt.Sprintf("x-%d", n)
	cert, serial, err := v.ca.issue(name)
	if err != nil {
		return nil, err
	}
	all, err := v.everywhere(name, login{}, cert)
	if err != nil {
		return nil, err
	}
	return &attempt{
		revoke:  func(ctx context.Context) error { return revoke(ctx, serial) },
		effects: endings(all, reason),
		undo:    func(context.Context) error { v.drop(all); return nil },
	}, nil
}

// bannedCertificate is a certificate that is banned.
func (v *revoker) bannedCertificate(_ context.Context, n int) (*attempt, error) {
	return v.withCertificate(n, func(ctx context.Context, serial int64) error {
		return v.tenant.call(ctx, v.site, http.MethodPost, "/bans", map[string]string{"kind": "certificate", "value": fmt.Sprintf("serial:%x", serial)}, nil)
	}, mqtt.AdministrativeAction)
}

// listedCertificate is a certificate that comes into a revocation list.
func (v *revoker) listedCertificate(_ context.Context, n int) (*attempt, error) {
	return v.withCertificate(n, func(ctx context.Context, serial int64) error {
		v.gone = append(v.gone, serial)
		list, err := v.ca.revoke(v.gone)
		if err != nil {
			return err
		}
		return v.setCAs(ctx, list)
	}, mqtt.NotAuthorized)
}

// publishers are the clients of the kinds that refuse a topic.
func (v *revoker) publishers() []*held { return v.held[len(v.held)-len(v.site.Gateways):] }

// publisher has a client connected at each gateway that goes on to be.
func (v *revoker) publisher(context.Context) error {
	_, err := v.everywhere("publisher", v.tenant.login, nil)
	return err
}

func (v *revoker) refusals(topic string) (effects []func(context.Context) (time.Time, error)) {
	for _, h := range v.publishers() {
		effects = append(effects, h.refusesTopic(topic))
	}
	return effects
}

// allowed waits until the topic is allowed at all gateways.
func (v *revoker) allowed(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, v.giveUp)
	defer cancel()
	for g, h := range v.publishers() {
		if err := h.answers(ctx, topic, false); err != nil {
			return fmt.Errorf("%s is allowed, and gateway %d refuses it: %w", topic, g+1, err)
		}
	}
	return nil
}

// policyTopics are allowed by the revisions of a policy in turn, one by each.
var policyTopics = [2]string{"even/x", "odd/x"}

func (v *revoker) firstPolicy(ctx context.Context) error {
	if err := v.publisher(ctx); err != nil {
		return err
	}
	if err := v.setPolicy(ctx, policyTopics[1]); err != nil {
		return err
	}
	return v.allowed(ctx, policyTopics[1])
}

func (v *revoker) noPolicy(ctx context.Context) error {
	if err := v.tenant.call(ctx, v.site, http.MethodDelete, "/policies", nil, nil); err != nil {
		return err
	}
	return errors.Join(v.allowed(ctx, policyTopics[0]), v.allowed(ctx, policyTopics[1]))
}

func (v *revoker) setPolicy(ctx context.Context, topic string) error {
	return v.tenant.call(ctx, v.site, http.MethodPut, "/policies", map[string]any{"files": map[string]string{
		"policy.rego": fmt.Sprintf("package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": %q}\n", topic),
	}}, nil)
}

// policy is a revision that does not allow what the one before did.
func (v *revoker) policy(_ context.Context, n int) (*attempt, error) {
	was, now := policyTopics[(n+1)%2], policyTopics[n%2]
	return &attempt{
		revoke:  func(ctx context.Context) error { return v.setPolicy(ctx, now) },
		effects: v.refusals(was),
		undo:    func(ctx context.Context) error { return v.allowed(ctx, now) },
	}, nil
}

// deepTopic has more levels than the plan starter allows, and fewer than dev does.
var deepTopic = strings.Repeat("a/", 39) + "a"

// plan is one with lower limits.
func (v *revoker) plan(context.Context, int) (*attempt, error) {
	change := func(ctx context.Context, plan string) error {
		return v.tenant.call(ctx, v.site, http.MethodPut, "/plan", map[string]string{"plan": plan}, nil)
	}
	return &attempt{
		revoke:  func(ctx context.Context) error { return change(ctx, tenancy.PlanStarter) },
		effects: v.refusals(deepTopic),
		undo: func(ctx context.Context) error {
			if err := change(ctx, tenancy.PlanDev); err != nil {
				return err
			}
			return v.allowed(ctx, deepTopic)
		},
	}, nil
}

// suspended is the tenant, which is suspended and deleted in turn.
func (v *revoker) suspended(_ context.Context, n int) (*attempt, error) {
	ask := func(ctx context.Context, method, path string) error {
		return v.tenant.call(ctx, v.site, method, path, struct{}{}, nil)
	}
	revoke := func(ctx context.Context) error { return ask(ctx, http.MethodPost, ":suspend") }
	back := ":resume"
	if n%2 == 1 {
		revoke = func(ctx context.Context) error { return ask(ctx, http.MethodDelete, "") }
		back = ":restore"
	}
	all, err := v.everywhere("suspended", v.tenant.login, nil)
	if err != nil {
		return nil, err
	}
	return &attempt{
		revoke:  revoke,
		effects: endings(all, mqtt.AdministrativeAction),
		undo: func(ctx context.Context) error {
			if err := ask(ctx, http.MethodPost, back); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, v.giveUp)
			defer cancel()
			for _, h := range all {
				if err := h.accepted(ctx); err != nil {
					return fmt.Errorf("the tenant is active again, and %s is not let in: %w", h.id, err)
				}
			}
			v.drop(all)
			return nil
		},
	}, nil
}
