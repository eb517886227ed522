// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/wire"
)

// Files are where a broker that joined keeps what makes it a member, in one folder.
type Files struct{ Dir string }

// Cert is the PEM file of the broker's certificate.
func (f Files) Cert() string { return filepath.Join(f.Dir, "node.pem") }

// Key is that of its key.
func (f Files) Key() string { return filepath.Join(f.Dir, "node.key") }

// CA is that of the region's CA.
func (f Files) CA() string { return filepath.Join(f.Dir, "ca.pem") }

// NATSToken is the file with the secret of the control plane.
func (f Files) NATSToken() string { return filepath.Join(f.Dir, "nats.token") }

func (f Files) cluster() string { return filepath.Join(f.Dir, "cluster.json") }

// Cluster is what the broker was told when it joined; nil if it has not.
func (f Files) Cluster() (*Cluster, error) {
	text, err := os.ReadFile(f.cluster())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c Cluster
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", f.cluster(), err)
	}
	return &c, nil
}

// Join asks the join listener at address for a certificate with a token and keeps what it
// gets in f, whose folder is made. It is asked again and again while nobody answers, until
// ctx is done. The error is Invalid, Denied or Conflict for what asking again does not
// mend.
func Join(ctx context.Context, f Files, address, tokenText, node string, log *slog.Logger) (*Cluster, error) {
	t, err := parseToken(tokenText)
	if err != nil {
		return nil, err
	}
	if err := t.current(node, time.Now()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return nil, err
	}
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	var ca *x509.Certificate
	conf := pin(t.fingerprint)
	check := conf.VerifyConnection
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		if err := check(state); err != nil {
			return err
		}
		ca = state.PeerCertificates[len(state.PeerCertificates)-1]
		return nil
	}
	var got *answer
	for {
		got, err = post(ctx, conf, address, pathJoin, node, tokenText, key)
		if err == nil || !errs.Is(err, errs.Unavailable) {
			break
		}
		log.Warn("the cluster cannot be joined yet", slog.String("at", address), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
	switch {
	case err != nil:
		return nil, err
	case got.Cluster == nil:
		return nil, errs.New(errs.Internal, "the answer of %s says nothing of the cluster", address)
	}
	if err := believable([]byte(got.Certificate), ca, node, key); err != nil {
		return nil, err
	}
	told, err := json.MarshalIndent(got.Cluster, "", "  ")
	if err != nil {
		return nil, err
	}
	// The last says that the others are there.
	for _, x := range []struct {
		file string
		text []byte
	}{
		{f.CA(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})},
		{f.Cert(), []byte(got.Certificate)},
		{f.NATSToken(), []byte(got.Cluster.NATSToken)},
		{f.cluster(), told},
	} {
		if err := replace(x.file, x.text); err != nil {
			return nil, err
		}
	}
	return got.Cluster, nil
}

// key reads the broker's key, and makes it on first use.
func (f Files) key() (*ecdsa.PrivateKey, error) {
	if _, err := os.Stat(f.Key()); err == nil {
		return readKey(f.Key())
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, replace(f.Key(), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// replace writes a file in one step.
func replace(file string, text []byte) error {
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// believable returns nil if a certificate is of ca, for node and its key.
func believable(text []byte, ca *x509.Certificate, node string, key *ecdsa.PrivateKey) error {
	cert, err := parseCertificate(text)
	if err != nil {
		return errs.New(errs.Denied, "the certificate that was given: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || cert.Subject.CommonName != node || !key.PublicKey.Equal(cert.PublicKey) {
		return errs.New(errs.Denied, "the certificate that was given is not one of the cluster's CA for %q and its key", node)
	}
	return nil
}

// post asks. The error is Unavailable if there is no answer, else what the answer says.
func post(ctx context.Context, conf *tls.Config, address, path, node, tokenText string, key *ecdsa.PrivateKey) (*answer, error) {
	csr, err := newRequest(node, key)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(ask{Node: node, Token: tokenText, Request: string(csr)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected host:port of a broker's join listener, found %q: %w", address, err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		if errs.Is(err, errs.Denied) {
			return nil, errs.New(errs.Denied, "join at %s: %w", address, err)
		}
		return nil, errs.New(errs.Unavailable, "join at %s: %w", address, err)
	}
	defer func() { _ = res.Body.Close() }()
	var got answer
	if err := json.NewDecoder(io.LimitReader(res.Body, mostBytes)).Decode(&got); err != nil {
		return nil, errs.New(errs.Unavailable, "join at %s: expected the answer of a join listener: %w", address, err)
	}
	if res.StatusCode == http.StatusOK {
		return &got, nil
	}
	for kind, code := range statuses {
		if code == res.StatusCode {
			return nil, errs.New(kind, "%s", got.Error)
		}
	}
	return nil, errs.New(errs.Unavailable, "join at %s: %s", address, got.Error)
}

// Renewer has the certificate of a broker renewed when two thirds of its life are over.
type Renewer struct {
	Files Files
	// Address is a join listener, Node the broker's name.
	Address, Node string
	Log           *slog.Logger
}

// Run looks each twentieth of the certificate's life, at most each hour, until ctx is
// done. Who opens links reads the new certificate from its file (wire.TLS).
func (r *Renewer) Run(ctx context.Context) {
	for {
		wait := time.Hour
		cert, err := readCertificate(r.Files.Cert())
		if err == nil {
			life := cert.NotAfter.Sub(cert.NotBefore)
			wait = min(wait, max(life/20, 100*time.Millisecond))
			if time.Now().After(cert.NotAfter.Add(-life / 3)) {
				if err = r.renew(ctx); err == nil {
					r.Log.Info("the certificate of this broker is renewed")
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			r.Log.Error("the certificate of this broker cannot be renewed", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (r *Renewer) renew(ctx context.Context) error {
	conf, err := wire.TLS(r.Files.Cert(), r.Files.Key(), r.Files.CA())
	if err != nil {
		return err
	}
	ca, err := readCertificate(r.Files.CA())
	if err != nil {
		return err
	}
	key, err := readKey(r.Files.Key())
	if err != nil {
		return err
	}
	// Any broker of the CA will do.
	roots := conf.RootCAs
	conf.InsecureSkipVerify = true //nolint:gosec // VerifyConnection checks all but the name
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err
	}
	got, err := post(ctx, conf, r.Address, pathRenew, r.Node, "", key)
	if err != nil {
		return err
	}
	if err := believable([]byte(got.Certificate), ca, r.Node, key); err != nil {
		return err
	}
	return replace(r.Files.Cert(), []byte(got.Certificate))
}
