// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// PolicyRevision is a revision of a tenant's own policy, without its text.
type PolicyRevision struct {
	Revision    uint64    `json:"revision" example:"3"`
	State       string    `json:"state" enum:"live,shadow,kept" doc:"live holds now; shadow is looked at beside it; kept can be made live."`
	Description string    `json:"description,omitempty"`
	Connect     bool      `json:"connect" doc:"Whether it has mqtt.connect."`
	Dynamic     bool      `json:"dynamic" doc:"Whether mqtt.check is asked about what the grants allow."`
	Classes     []string  `json:"classes" doc:"The classes of clients."`
	Grants      int       `json:"grants" doc:"The entries of all classes together."`
	CreatedBy   string    `json:"created_by,omitempty" doc:"The id of the key or member that made it."`
	CreatedAt   time.Time `json:"created_at"`
}

// PolicyDetail is a revision with its text.
type PolicyDetail struct {
	PolicyRevision
	Files map[string]string `json:"files" doc:"Rego by the names of its files."`
}

// PolicyList is the answer to GET …/policies.
type PolicyList struct {
	Items    []PolicyRevision `json:"items" doc:"The newest first."`
	Live     uint64           `json:"live" doc:"The revision that holds; 0 is the default: everything in the tenant is allowed."`
	OnRevoke string           `json:"on_revoke,omitempty" enum:"unsubscribe,disconnect" doc:"What becomes of connections whose session holds subscriptions that a new revision does not grant: these are taken away, and with disconnect the connection ends with 0x87."`
}

// PolicyFiles are the text of a policy.
type PolicyFiles struct {
	Files map[string]string `json:"files" doc:"Rego by the names of its files, such as policy.rego. package mqtt has grants, and if wanted connect and classes; rules whose names begin with test_ are its tests." minProperties:"1"`
}

// PolicyRequest is the body of PUT …/policies.
type PolicyRequest struct {
	PolicyFiles
	Description string `json:"description,omitempty" maxLength:"256"`
	OnRevoke    string `json:"on_revoke,omitempty" enum:"unsubscribe,disconnect" doc:"Left out it stays as it was; at first it is unsubscribe."`
	Shadow      bool   `json:"shadow,omitempty" doc:"Do not make it live, but look at what it would decide beside the live one: see policies:shadow."`
}

// PolicyMade is the answer to PUT …/policies.
type PolicyMade struct {
	PolicyRevision
	Tests policy.Report `json:"tests"`
}

// Rollback is the body of policies:rollback.
type Rollback struct {
	Revision uint64 `json:"revision" minimum:"1" doc:"A revision that is kept."`
}

// PolicyClient is a client that questions are about.
type PolicyClient struct {
	ID     string            `json:"id,omitempty" doc:"The client id (%c)."`
	User   string            `json:"user,omitempty" doc:"The user name (%u)."`
	CN     string            `json:"cn,omitempty" doc:"The common name of its certificate (%cn)."`
	Groups []string          `json:"groups,omitempty"`
	Claims map[string]string `json:"claims,omitempty"`
	IP     string            `json:"ip,omitempty" doc:"Its address, for mqtt.connect."`
}

// PolicyQuestion is what a client wants to do.
type PolicyQuestion struct {
	Client PolicyClient `json:"client" required:"false"`
	Class  string       `json:"class,omitempty" doc:"The class of the client; left out, mqtt.connect says it."`
	Action string       `json:"action,omitempty" enum:"publish,subscribe" default:"publish"`
	Topic  string       `json:"topic,omitempty" doc:"A topic name, or to subscribe a topic filter."`
	QoS    int          `json:"qos,omitempty" minimum:"0" maximum:"2"`
	Retain bool         `json:"retain,omitempty"`
}

// ExplainRequest is the body of policies:explain.
type ExplainRequest struct {
	PolicyQuestion
	Decision string `json:"decision,omitempty" doc:"The id of a decision, from the log or an event, instead of a question."`
	Revision uint64 `json:"revision,omitempty" doc:"Of the policy; left out, the one that decided, or the live one."`
}

// PolicyAnswer is what a policy says.
type PolicyAnswer struct {
	Allowed  bool                `json:"allowed"`
	QoS      int                 `json:"qos" doc:"The highest QoS at which a subscription is granted."`
	Revision uint64              `json:"revision" doc:"0 is the default, or a policy that is not stored."`
	Class    string              `json:"class,omitempty"`
	Entry    *tenancy.GrantEntry `json:"entry,omitempty" doc:"The entry that decided; at is the file and line of the rule that made it."`
	Why      string              `json:"why"`
	// Recorded is the decision that was asked about.
	Recorded *RecordedDecision `json:"recorded,omitempty"`
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

// SimulateRequest is the body of policies:simulate.
type SimulateRequest struct {
	Files     map[string]string `json:"files,omitempty" doc:"A policy that is not stored."`
	Revision  uint64            `json:"revision,omitempty" doc:"Or one that is."`
	Questions []PolicyQuestion  `json:"questions,omitempty" maxItems:"1000" doc:"What to ask; left out, what gateways have decided lately is held against it."`
}

// PolicyChange is a decision that would be another one.
type PolicyChange struct {
	Decision string `json:"decision,omitempty" doc:"The id of the decision, for policies:explain; not there for connects and questions."`
	ClientID string `json:"client_id"`
	Username string `json:"username,omitempty"`
	Action   string `json:"action" enum:"connect,publish,subscribe"`
	Topic    string `json:"topic,omitempty"`
	QoS      int    `json:"qos"`
	Retain   bool   `json:"retain"`
	Was      bool   `json:"was"`
	Would    bool   `json:"would"`
	Why      string `json:"why"`
}

// PolicyDiff is how often a policy would decide otherwise than was decided.
type PolicyDiff struct {
	Revision uint64         `json:"revision" doc:"The policy; 0 for one that is not stored."`
	Since    *time.Time     `json:"since" doc:"When the first of the decisions was made; null if there was none."`
	Looked   int            `json:"looked" doc:"How many decisions were looked at: what was denied, and a sample of what was allowed."`
	Changed  int            `json:"changed"`
	Changes  []PolicyChange `json:"changes" doc:"At most 100 of them."`
}

// Simulation is the answer to policies:simulate.
type Simulation struct {
	PolicyDiff
	Answers []PolicyAnswer `json:"answers" doc:"To the questions, in their order."`
}

type (
	policiesOutput struct {
		ETag string `header:"ETag"`
		Body PolicyList
	}
	putPolicyInput struct {
		InTenant
		Change
		Body PolicyRequest
	}
	policyMadeOutput struct {
		ETag string `header:"ETag"`
		Body PolicyMade
	}
	policyInput struct {
		InTenant
		Revision uint64 `path:"revision" doc:"The number of the revision." example:"3"`
	}
	policyOutput  struct{ Body PolicyDetail }
	noPolicyInput struct {
		InTenant
		Change
	}
	rollbackInput struct {
		InTenant
		Change
		Body Rollback
	}
	revisionOutput struct {
		ETag string `header:"ETag"`
		Body PolicyRevision
	}
	testPolicyInput struct {
		InTenant
		Write
		Body PolicyFiles
	}
	testPolicyOutput struct{ Body policy.Report }
	explainInput     struct {
		InTenant
		Write
		Body ExplainRequest
	}
	explainOutput struct{ Body PolicyAnswer }
	simulateInput struct {
		InTenant
		Write
		Body SimulateRequest
	}
	simulateOutput struct{ Body Simulation }
	diffOutput     struct{ Body PolicyDiff }
)
