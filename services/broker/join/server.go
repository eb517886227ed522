// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Cluster is what a new broker must know of the cluster besides its certificate.
type Cluster struct {
	// NATS are the servers of the control plane, NATSToken what they ask for, and
	// NATSReplicas as in their section of the configuration.
	NATS         []string `json:"nats"`
	NATSToken    string   `json:"nats_token,omitempty"`
	NATSReplicas int      `json:"nats_replicas,omitempty"`
	// Partitions and Replicas are those of the region.
	Partitions int `json:"partitions"`
	Replicas   int `json:"replicas"`
}

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	Authority *Authority
	// TLS has this node's certificate, of the Authority's CA.
	TLS     *tls.Config
	Cluster Cluster
	// Admit returns an error if a node of that name may not have a certificate now: a new
	// one if renew is false, else one that has a certificate of that name.
	Admit func(ctx context.Context, node string, renew bool) error
	// Use notes that the token with that id was used by who, for the whole cluster, and
	// returns an error Conflict if another has used it before.
	Use func(ctx context.Context, id, who string) error
	// Life is for how long certificates are good, Life of the package by default.
	Life time.Duration
	Log  *slog.Logger
}

// Server answers at a listener without client certificates of its own.
type Server struct{ config ServerConfig }

// NewServer makes a Server.
func NewServer(c ServerConfig) *Server {
	if c.Life == 0 {
		c.Life = Life
	}
	return &Server{c}
}

// ask is what a broker asks: with a token, or with its present certificate.
type ask struct {
	Node    string `json:"node"`
	Token   string `json:"token,omitempty"`
	Request string `json:"request"`
}

// answer is what it gets.
type answer struct {
	Error       string   `json:"error,omitempty"`
	Certificate string   `json:"certificate,omitempty"`
	Cluster     *Cluster `json:"cluster,omitempty"`
}

// The paths, and how large a question or an answer may be, in bytes.
const (
	pathJoin  = "/v1/join"
	pathRenew = "/v1/renew"
	mostBytes = 64 << 10
)

// Serve answers at l until ctx is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	conf := s.config.TLS.Clone()
	conf.ClientAuth = tls.VerifyClientCertIfGiven
	conf.NextProtos = []string{"http/1.1"}
	// Who joins knows nothing of the CA but its fingerprint: it is shown the CA.
	own := conf.GetCertificate
	first := conf.Certificates
	conf.Certificates = nil
	conf.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		var cert *tls.Certificate
		var err error
		switch {
		case own != nil:
			if cert, err = own(h); err != nil {
				return nil, err
			}
		case len(first) > 0:
			cert = &first[0]
		default:
			return nil, errors.New("join: no certificate")
		}
		chain := *cert
		chain.Certificate = [][]byte{cert.Certificate[0], s.config.Authority.cert.Raw}
		return &chain, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathJoin, func(w http.ResponseWriter, r *http.Request) { s.handle(w, r, false) })
	mux.HandleFunc("POST "+pathRenew, func(w http.ResponseWriter, r *http.Request) { s.handle(w, r, true) })
	h := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	if err := h.Serve(tls.NewListener(l, conf)); ctx.Err() == nil {
		return err
	}
	return nil
}

var statuses = map[errs.Kind]int{
	errs.Invalid: http.StatusBadRequest, errs.Denied: http.StatusForbidden, errs.Conflict: http.StatusConflict, errs.Unavailable: http.StatusServiceUnavailable,
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request, renew bool) {
	out, node, err := s.answer(r, renew)
	log := s.config.Log.With(slog.String("broker", node), slog.String("from", r.RemoteAddr), slog.Bool("renew", renew))
	code := http.StatusOK
	if err != nil {
		out.Error = err.Error()
		if code = statuses[errs.KindOf(err)]; code == 0 {
			code = http.StatusInternalServerError
		}
		log.Warn("a broker gets no certificate", slog.Any("error", err))
	} else {
		log.Info("a broker gets a certificate")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(out) // it asks again if this fails
}

func (s *Server) answer(r *http.Request, renew bool) (out answer, node string, err error) {
	var q ask
	if err := json.NewDecoder(io.LimitReader(r.Body, mostBytes)).Decode(&q); err != nil {
		return out, "", errs.New(errs.Invalid, "expected a question in JSON: %w", err)
	}
	now := time.Now()
	csr, err := parseRequest([]byte(q.Request))
	if err != nil {
		return out, q.Node, err
	}
	if renew {
		if err := shown(r.TLS, q.Node); err != nil {
			return out, q.Node, err
		}
		if err := s.config.Admit(r.Context(), q.Node, true); err != nil {
			return out, q.Node, err
		}
	} else {
		t, err := s.config.Authority.check(q.Token, q.Node, now)
		if err != nil {
			return out, q.Node, err
		}
		if err := s.config.Admit(r.Context(), q.Node, false); err != nil {
			return out, q.Node, err
		}
		// The same broker may ask again when it has got no answer: it has its key still.
		who := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
		if err := s.config.Use(r.Context(), t.ID(), hex.EncodeToString(who[:])); err != nil {
			return out, q.Node, err
		}
		out.Cluster = &s.config.Cluster
	}
	cert, err := s.config.Authority.sign([]byte(q.Request), q.Node, now, s.config.Life)
	if err != nil {
		return answer{}, q.Node, err
	}
	out.Certificate = string(cert)
	return out, q.Node, nil
}

// shown returns nil if the connection shows a certificate of that name.
func shown(state *tls.ConnectionState, node string) error {
	if state == nil || len(state.VerifiedChains) == 0 {
		return errs.New(errs.Denied, "a certificate is renewed for who shows the present one")
	}
	if name := state.VerifiedChains[0][0].Subject.CommonName; name != node {
		return errs.New(errs.Denied, "the certificate shown is for %q, the request for %q", name, node)
	}
	return nil
}

// pin has a connection accept nobody but who has a certificate of the CA with that
// fingerprint, which is shown with it.
func pin(fingerprint [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// VerifyConnection checks more: not a name, which a new broker does not know.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := pinned(state.PeerCertificates, fingerprint)
			return err
		},
	}
}

// pinned returns the CA of a chain. The error is Denied.
func pinned(chain []*x509.Certificate, fingerprint [sha256.Size]byte) (*x509.Certificate, error) {
	if len(chain) < 2 {
		return nil, errs.New(errs.Denied, "who answers does not show the cluster's CA: is that the join listener of a broker?")
	}
	ca := chain[len(chain)-1]
	if sha256.Sum256(ca.Raw) != fingerprint {
		return nil, errs.New(errs.Denied, "who answers shows another CA than the join token is bound to: it is another cluster, or somebody is in between")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return nil, errs.New(errs.Denied, "who answers has no certificate of the cluster's CA: %w", err)
	}
	return ca, nil
}
