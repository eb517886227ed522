// SPDX-License-Identifier: Apache-2.0

// Package api is the public API /v1: sign-up, organizations with members, API
// keys and their audit log, credentials, policies, quotas, usage, clients, publish and
// retained messages. The Go types of its requests and
// answers are the source of the OpenAPI document, which it serves and which
// docs/openapi.json repeats. net/http owns its goroutines, Run those of its
// server, and an import some until Run has ended. It reaches brokers through DataPlane only, and knows no bus.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/quota/usage"
	"github.com/manormq/manor/tenancy/sources"
	"github.com/manormq/manor/tenancy/store"
)

// DataPlane is the way to the brokers; see services/api/dataplane.
type DataPlane interface {
	// Publish publishes m with its own QoS and returns the acknowledgement.
	Publish(ctx context.Context, t *tenancy.Tenant, m mqtt.Message) (dataplane.Ack, error)
	// Query asks the brokers that know.
	Query(ctx context.Context, q link.Query) (*link.Answer, error)
}

// Used says what a tenant uses of the quotas that gateways share; see
// tenancy/quota/usage.
type Used interface {
	Usage(ctx context.Context, tenant string) (usage.Used, error)
}

// Hasher hashes and checks chosen passwords; see tenancy/authn/password.
type Hasher interface {
	// Hash takes a turn of of, such as a tenant: who asks often waits behind the others.
	Hash(ctx context.Context, of, password string) (string, error)
	// Verify reports whether the password has that hash; id and revision name
	// what has it.
	Verify(ctx context.Context, of, id string, revision uint64, hash string, password []byte) (bool, error)
	// Refuse takes as long as Verify of a wrong password.
	Refuse(ctx context.Context, of, id string, password []byte) error
}

// Endpoints are the ports at which a tenant's hostname is served; 0 means not
// at all.
type Endpoints struct {
	MQTT  int `yaml:"mqtt" doc:"port of MQTT over TCP that sign-ups are told; 0 is not told"`
	MQTTS int `yaml:"mqtts" doc:"port of MQTT over TLS that sign-ups are told; 0 is not told"`
	WS    int `yaml:"ws" doc:"port of MQTT over WebSocket that sign-ups are told; 0 is not told"`
	WSS   int `yaml:"wss" doc:"port of MQTT over WebSocket and TLS that sign-ups are told; 0 is not told"`
}

// DefaultEndpoints are the ports of product.md.
func DefaultEndpoints() Endpoints { return Endpoints{MQTT: 1883, MQTTS: 8883, WS: 8083, WSS: 8084} }

// Config says what the API stands on.
type Config struct {
	Store  *store.Store
	Hasher Hasher
	Data   DataPlane
	// RBAC decides who may do what, and Audit remembers who did.
	RBAC  *policy.RBAC
	Audit *audit.Log
	// Events says what happened to clients.
	Events *events.Log
	// Happened is told what belongs to a tenant's history; nil if nobody keeps that.
	Happened func(tenant string, e events.Event)
	// Used is what gateways say is used; nil knows nothing of rates.
	Used Used
	// Policies follows the tenants' own policies.
	Policies *decide.Service
	// Sources applies whole files of credentials; nil takes none.
	Sources *sources.Service
	// Admission is asked about each change; nil lets all through.
	Admission Admission
	// Domains follows custom domains.
	Domains *domains.Service
	// Sealer seals the keys of managed CAs; nil has none.
	Sealer *managedca.Sealer
	// Mailer sends invitations, and codes without which a sign-up makes nothing;
	// nil sends no mail, and believes every address.
	Mailer Mailer
	// Rates bound what strangers may ask.
	Rates Rates
	// Bus is where the processes of the API keep the quota api_rate together, while Run
	// runs; nil has this one keep it alone.
	Bus bus.Bus
	// TrustedProxies are networks, and addresses, of proxies whose
	// X-Forwarded-For is believed.
	TrustedProxies []string
	// Domain is what the tenants' host names are below: acme.<domain>.
	Domain    string
	Endpoints Endpoints
	// DeletionGrace is for how long a deleted tenant can be restored; 0 means
	// tenancy.DefaultDeletionGrace.
	DeletionGrace time.Duration
	// DefaultPlan is the plan of a sign-up that names none.
	DefaultPlan string
	// Plans are those that sign-ups, and owners for their tenants, may choose beside
	// DefaultPlan; nil is tenancy.OwnPlans.
	Plans []string
	// OverridesBeyondPlan lets owners override quotas beyond what the plan has.
	OverridesBeyondPlan bool
	// Console serves everything outside /v1; nil is a page that says what this
	// is.
	Console http.Handler
	// Listen is the address; TLS, if not nil, makes it HTTPS.
	Listen string
	TLS    *tls.Config
	Log    *slog.Logger
	// Registerer takes the API's metrics; nil means none.
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Bounds on requests.
const (
	bodyMax        = 1 << 20  // bytes of a JSON body
	publishBodyMax = 16 << 20 // bytes of a JSON body with a payload
	handleTimeout  = 20 * time.Second
)

// Server is the API. It is safe for concurrent use. Make it with New.
type Server struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	store   *store.Store
	api     huma.API
	openAPI []byte
	handler http.Handler
	router  chi.Router
	// operations are those that are registered, by method and path; complete when New is done.
	operations map[string]*huma.Operation
	metrics    metrics
	http       serving

	limiters limiters
	// right has the digests of keys and tokens that were right.
	right      *lru.Cache[[sha256.Size]byte, struct{}]
	rates      *apiRates
	proxies    proxies
	background *background
	// keptMax is how many bytes of an answer are kept for its Idempotency-Key.
	keptMax  int
	followed *followed
	// streams is done when the server shuts down: they would never end by themselves.
	streams    context.Context //nolint:containedctx // of requests that have no end
	endStreams context.CancelFunc
	// unlisted are operations that permissions does not have, and such without a key that
	// no limiter counts; none, when New is done.
	unlisted []string
}

// New returns the API with its routes; it does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.DefaultPlan == "" {
		cfg.DefaultPlan = tenancy.PlanFree
	}
	if _, err := tenancy.PlanByName(cfg.DefaultPlan); err != nil {
		return nil, err
	}
	if cfg.Plans == nil {
		cfg.Plans = tenancy.OwnPlans()
	}
	if err := ValidatePlans(cfg.Plans); err != nil {
		return nil, err
	}
	if cfg.Store == nil || cfg.Hasher == nil || cfg.Data == nil || cfg.RBAC == nil || cfg.Policies == nil || cfg.Domains == nil || cfg.Audit == nil || cfg.Events == nil || cfg.Log == nil {
		return nil, errs.New(errs.Invalid, "api: expected a store, a hasher, a data plane, rules, policies, domains, an audit log, an event log and a logger")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Console == nil {
		cfg.Console = landing()
	}
	s := &Server{cfg: cfg, log: cfg.Log, now: cfg.Now, store: cfg.Store, metrics: newMetrics(cfg.Registerer), background: newBackground(), operations: map[string]*huma.Operation{}, keptMax: keptMax, followed: newFollowed()}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	var err error
	if s.right, err = lru.New[[sha256.Size]byte, struct{}](rightMost); err != nil {
		return nil, errs.New(errs.Internal, "api: %w", err)
	}
	if s.limiters, err = newLimiters(cfg.Rates); err != nil {
		return nil, err
	}
	if s.rates, err = newAPIRates(); err != nil {
		return nil, err
	}
	if s.proxies, err = parseProxies(cfg.TrustedProxies); err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	s.router = r
	s.api = humachi.New(r, describe())
	s.api.UseMiddleware(s.measure, s.authenticate)
	s.routes()
	if len(s.unlisted) > 0 {
		return nil, errs.New(errs.Internal, "api: neither permissions.go says what these operations need, nor limiter.go what bounds them: %s", strings.Join(s.unlisted, ", "))
	}
	if s.openAPI, err = document(s.api.OpenAPI()); err != nil {
		return nil, err
	}
	described := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(s.openAPI) // the client is gone if this fails
	}
	r.Get("/v1/openapi.json", described)
	r.Head("/v1/openapi.json", described)
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		if isAPI(req) {
			writeProblem(w, problemOf(errs.Coded(errs.NotFound, "path_unknown", "there is nothing at %s", shorten(req.URL.Path))))
			return
		}
		cfg.Console.ServeHTTP(w, req)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		allowed := allow(r, req)
		w.Header().Set("Allow", allowed)
		p := newProblem(http.StatusMethodNotAllowed, "method_not_allowed", shorten(req.Method)+" is not possible here, only "+allowed)
		writeProblem(w, p)
	})
	s.handler = s.guard(s.idempotent(r))
	return s, nil
}

// allow lists the methods that the path of a request has, as the Allow header
// wants it.
func allow(r chi.Routes, req *http.Request) string {
	path := req.URL.RawPath
	if path == "" {
		path = req.URL.Path
	}
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if r.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}

// Handler returns the routes, for tests and for processes that serve them
// elsewhere.
func (s *Server) Handler() http.Handler { return s.handler }

// OpenAPI returns the document that describes the API.
func (s *Server) OpenAPI() []byte { return s.openAPI }

func (s *Server) routes() {
	s.signUpRoutes()
	s.verificationRoutes()
	s.signInRoutes()
	s.organizationRoutes()
	s.memberRoutes()
	s.apiKeyRoutes()
	s.auditRoutes()
	s.tenantRoutes()
	s.choiceRoutes()
	s.settingRoutes()
	s.clientCARoutes()
	s.policyRoutes()
	s.credentialRoutes()
	s.authMethodRoutes()
	s.banRoutes()
	s.certificateRoutes()
	s.claimRoutes()
	s.domainRoutes()
	s.deviceRoutes()
	s.allowListRoutes()
	s.importRoutes()
	s.clientRoutes()
	s.lookRoutes()
	s.eventRoutes()
	s.messageRoutes()
}

// register adds an operation whose errors are ours: what the handler returns
// becomes a Problem. What it changes is recorded before it is answered.
func register[I, O any](s *Server, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	if permission := permissions[op.OperationID]; permission == "" && len(op.Security) > 0 {
		s.unlisted = append(s.unlisted, op.OperationID)
	} else if permission != "" && permission != own {
		op.Extensions = map[string]any{"x-permission": permission}
	}
	if _, ok := s.limiters.of(op.OperationID); !ok && len(op.Security) == 0 {
		s.unlisted = append(s.unlisted, op.OperationID)
	}
	changes := op.Method != http.MethodGet && !notChanges[op.OperationID]
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = bodyMax
		if len(op.Security) == 0 {
			op.MaxBodyBytes = strangerBodyMax
		}
	}
	s.operations[op.Method+" "+op.Path] = &op
	op.BodyReadTimeout = handleTimeout
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, handleTimeout)
		defer cancel()
		var out *O
		var err error
		if changes {
			c := &changing{log: s.cfg.Audit, admission: s.cfg.Admission, op: &op, in: in}
			out, err = f(context.WithValue(ctx, changeKey{}, c), in)
			if err == nil && c.none {
				err = c.dryRun(ctx)
			}
			err = c.end(ctx, err)
		} else {
			out, err = f(ctx, in)
		}
		if err != nil {
			p := problemOf(err)
			if p.Status >= http.StatusInternalServerError {
				s.log.Error("API request failed", "operation", op.OperationID, "error", err)
			}
			return nil, p
		}
		return out, nil
	})
}

// Conventions shared by many inputs. Their names are exported because only then
// huma sees what is embedded.
type (
	// Write is a request that changes something.
	Write struct {
		DryRun bool `query:"dry_run" doc:"Check everything, change nothing."`
	}
	// Post is a write that makes something.
	Post struct {
		Write
		IdempotencyKey string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. A request that is made again with the same key within 24 hours gets the answer of the first one; of an answer above 256 KiB, its status and headers, and a problem answer_too_large as its body."`
	}
	// Change is a write that replaces or removes something.
	Change struct {
		Write
		IfMatch string `header:"If-Match" doc:"An ETag; the request fails with 412 if the thing has changed since."`
	}
	// InTenant is a request about a tenant.
	InTenant struct {
		Tenant string `path:"tenant" doc:"The tenant's id." example:"acme"`
	}
	// Paged is a request for a list.
	Paged struct {
		Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"The most items to return."`
		Cursor string `query:"cursor" doc:"The next of the page before."`
	}
)
