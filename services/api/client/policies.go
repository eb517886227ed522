// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"strconv"
	"time"
)

// PolicyRevision is a revision of a tenant's own policy, without its text.
type PolicyRevision struct {
	Revision    uint64    `json:"revision"`
	State       string    `json:"state"` // live, shadow or kept
	Description string    `json:"description,omitempty"`
	Connect     bool      `json:"connect"`
	Dynamic     bool      `json:"dynamic"`
	Classes     []string  `json:"classes"`
	Grants      int       `json:"grants"`
	CreatedBy   string    `json:"created_by,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
}

// PolicyDetail is a revision with its text: Rego by the names of its files.
type PolicyDetail struct {
	PolicyRevision
	Files map[string]string `json:"files"`
}

// PolicyList is what there is of a tenant's own policy, the newest first.
type PolicyList struct {
	Items    []PolicyRevision `json:"items"`
	Live     uint64           `json:"live"` // 0 is the default
	OnRevoke string           `json:"on_revoke,omitempty"`
}

// PolicyFiles are the text of a policy.
type PolicyFiles struct {
	Files map[string]string `json:"files"`
}

// NewPolicy asks for a revision.
type NewPolicy struct {
	PolicyFiles
	Description string `json:"description,omitempty"`
	OnRevoke    string `json:"on_revoke,omitempty"` // unsubscribe or disconnect
	Shadow      bool   `json:"shadow,omitempty"`
}

// PolicyTest is what came of one test.
type PolicyTest struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Outcome string `json:"outcome"` // pass, fail, error or skip
	Message string `json:"message,omitempty"`
}

// PolicyLines are some of a file, both ends included.
type PolicyLines struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// PolicyCoverage is how much of a file the tests have come to.
type PolicyCoverage struct {
	File       string        `json:"file"`
	Percent    float64       `json:"percent"`
	NotCovered []PolicyLines `json:"not_covered"`
}

// PolicyReport is what came of a policy's tests.
type PolicyReport struct {
	Passed   int              `json:"passed"`
	Failed   int              `json:"failed"`
	Tests    []PolicyTest     `json:"tests"`
	Coverage float64          `json:"coverage"` // percent of the lines
	Files    []PolicyCoverage `json:"files"`
}

// PolicyMade is a revision that was made, with its tests.
type PolicyMade struct {
	PolicyRevision
	Tests PolicyReport `json:"tests"`
}

// PolicyImport is the file of another broker.
type PolicyImport struct {
	Format      string `json:"format"` // vmq_acl
	Text        string `json:"text"`
	Description string `json:"description,omitempty"`
	OnRevoke    string `json:"on_revoke,omitempty"` // unsubscribe or disconnect
	Shadow      bool   `json:"shadow,omitempty"`
}

// PolicyNote says of a line of it that it means something else here, or nothing.
type PolicyNote struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// PolicyImported is the revision that was made of it, and its text.
type PolicyImported struct {
	PolicyMade
	Files map[string]string `json:"files"`
	Notes []PolicyNote      `json:"notes"`
}

// PolicyRollback names a revision that is kept.
type PolicyRollback struct {
	Revision uint64 `json:"revision"`
}

// PolicyClient is a client that questions are about.
type PolicyClient struct {
	ID     string            `json:"id,omitempty"`
	User   string            `json:"user,omitempty"`
	CN     string            `json:"cn,omitempty"`
	Groups []string          `json:"groups,omitempty"`
	Claims map[string]string `json:"claims,omitempty"`
	IP     string            `json:"ip,omitempty"`
}

// PolicyQuestion is what a client wants to do.
type PolicyQuestion struct {
	Client PolicyClient `json:"client"`
	Class  string       `json:"class,omitempty"`
	Action string       `json:"action,omitempty"` // publish or subscribe
	Topic  string       `json:"topic,omitempty"`
	QoS    int          `json:"qos,omitempty"`
	Retain bool         `json:"retain,omitempty"`
}

// ExplainPolicy is a question, or the id of a decision.
type ExplainPolicy struct {
	PolicyQuestion
	Decision string `json:"decision,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
}

// GrantEntry allows or denies topics.
type GrantEntry struct {
	Effect   string  `json:"effect,omitempty"`
	Action   string  `json:"action"`
	Filter   string  `json:"filter"`
	User     *string `json:"user,omitempty"`
	QoS      *int    `json:"qos,omitempty"`
	Retain   *bool   `json:"retain,omitempty"`
	Priority int     `json:"priority,omitempty"`
	At       string  `json:"at,omitempty"` // file:line of the rule
}

// RecordedDecision is one that a gateway has made.
type RecordedDecision struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Revision uint64    `json:"revision"`
	ClientID string    `json:"client_id"`
	Username string    `json:"username"`
	Action   string    `json:"action"`
	Topic    string    `json:"topic"`
	Allowed  bool      `json:"allowed"`
}

// PolicyAnswer is what a policy says.
type PolicyAnswer struct {
	Allowed  bool              `json:"allowed"`
	QoS      int               `json:"qos"`
	Revision uint64            `json:"revision"`
	Class    string            `json:"class,omitempty"`
	Entry    *GrantEntry       `json:"entry,omitempty"`
	Why      string            `json:"why"`
	Recorded *RecordedDecision `json:"recorded,omitempty"`
}

// SimulatePolicy is a policy, and what to ask it: nothing asks what gateways have
// decided lately.
type SimulatePolicy struct {
	Files     map[string]string `json:"files,omitempty"`
	Revision  uint64            `json:"revision,omitempty"`
	Questions []PolicyQuestion  `json:"questions,omitempty"`
}

// PolicyChange is a decision that would be another one.
type PolicyChange struct {
	Decision string `json:"decision,omitempty"`
	ClientID string `json:"client_id"`
	Username string `json:"username,omitempty"`
	Action   string `json:"action"` // connect, publish or subscribe
	Topic    string `json:"topic,omitempty"`
	QoS      int    `json:"qos"`
	Retain   bool   `json:"retain"`
	Was      bool   `json:"was"`
	Would    bool   `json:"would"`
	Why      string `json:"why"`
}

// PolicyDiff is how often a policy would decide otherwise than was decided.
type PolicyDiff struct {
	Revision uint64         `json:"revision"`
	Since    *time.Time     `json:"since"`
	Looked   int            `json:"looked"`
	Changed  int            `json:"changed"`
	Changes  []PolicyChange `json:"changes"`
}

// Simulation is what a policy would decide.
type Simulation struct {
	PolicyDiff
	Answers []PolicyAnswer `json:"answers"`
}

// Policies lists the revisions of a tenant's own policy.
func (c *Client) Policies(ctx context.Context, tenant string) (*PolicyList, error) {
	return ask[PolicyList](ctx, c, "list-policies", []string{"tenant", tenant}, nil, nil)
}

// Policy gets a revision with its text.
func (c *Client) Policy(ctx context.Context, tenant string, revision uint64) (*PolicyDetail, error) {
	return ask[PolicyDetail](ctx, c, "get-policy", []string{"tenant", tenant, "revision", strconv.FormatUint(revision, 10)}, nil, nil)
}

// PutPolicy makes a revision.
func (c *Client) PutPolicy(ctx context.Context, tenant string, in NewPolicy, o ...Option) (*PolicyMade, error) {
	return ask[PolicyMade](ctx, c, "put-policy", []string{"tenant", tenant}, in, o)
}

// ImportPolicy makes a revision of the file of another broker.
func (c *Client) ImportPolicy(ctx context.Context, tenant string, in PolicyImport, o ...Option) (*PolicyImported, error) {
	return ask[PolicyImported](ctx, c, "import-policy", []string{"tenant", tenant}, in, o)
}

// DeletePolicy goes back to the default.
func (c *Client) DeletePolicy(ctx context.Context, tenant string, o ...Option) error {
	return c.call(ctx, "delete-policy", []string{"tenant", tenant}, nil, nil, o)
}

// RollbackPolicy makes a revision live that is kept.
func (c *Client) RollbackPolicy(ctx context.Context, tenant string, revision uint64, o ...Option) (*PolicyRevision, error) {
	return ask[PolicyRevision](ctx, c, "rollback-policy", []string{"tenant", tenant}, PolicyRollback{revision}, o)
}

// TestPolicy runs the tests of a policy, without keeping it.
func (c *Client) TestPolicy(ctx context.Context, tenant string, in PolicyFiles) (*PolicyReport, error) {
	return ask[PolicyReport](ctx, c, "test-policy", []string{"tenant", tenant}, in, nil)
}

// ExplainPolicy says what the policy decides, and why.
func (c *Client) ExplainPolicy(ctx context.Context, tenant string, in ExplainPolicy) (*PolicyAnswer, error) {
	return ask[PolicyAnswer](ctx, c, "explain-policy", []string{"tenant", tenant}, in, nil)
}

// SimulatePolicy holds a policy against questions, or what was decided.
func (c *Client) SimulatePolicy(ctx context.Context, tenant string, in SimulatePolicy) (*Simulation, error) {
	return ask[Simulation](ctx, c, "simulate-policy", []string{"tenant", tenant}, in, nil)
}

// PolicyShadow says what the shadow would have decided otherwise.
func (c *Client) PolicyShadow(ctx context.Context, tenant string) (*PolicyDiff, error) {
	return ask[PolicyDiff](ctx, c, "get-policy-shadow", []string{"tenant", tenant}, nil, nil)
}

// DeletePolicyShadow looks at the shadow no more.
func (c *Client) DeletePolicyShadow(ctx context.Context, tenant string, o ...Option) error {
	return c.call(ctx, "delete-policy-shadow", []string{"tenant", tenant}, nil, nil, o)
}
