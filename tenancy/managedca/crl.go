// SPDX-License-Identifier: Apache-2.0

package managedca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// CRLLife is after what time a revocation list says that there is a newer one.
const CRLLife = 24 * time.Hour

// reasonHold is certificateHold of RFC 5280 §5.3.1: it may be good again.
const reasonHold = 6

// Revoked is a certificate that is good no more.
type Revoked struct {
	Serial *big.Int // above 0
	At     time.Time
	// Hold: it may be good again.
	Hold bool
}

// CRL returns the revocation list of a CA in DER (RFC 5280 §5) as of now, signed with its
// key, a PKCS #8. Its number, which grows, is the time in milliseconds since 1970. A serial
// number that is there twice is listed once.
func CRL(ca string, key []byte, revoked []Revoked, now time.Time) ([]byte, error) {
	parent, signer, err := authority(ca, key)
	if err != nil {
		return nil, err
	}
	revoked = slices.Clone(revoked)
	slices.SortStableFunc(revoked, func(a, b Revoked) int { return a.Serial.Cmp(b.Serial) })
	revoked = slices.CompactFunc(revoked, func(a, b Revoked) bool { return a.Serial.Cmp(b.Serial) == 0 })
	list := &x509.RevocationList{Number: big.NewInt(now.UnixMilli()), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(CRLLife)}
	for _, r := range revoked {
		e := x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.At}
		if r.Hold {
			e.ReasonCode = reasonHold
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, e)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, parent, signer)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign a revocation list: %w", err)
	}
	return der, nil
}

// authority reads a CA and its key.
func authority(ca string, key []byte) (*x509.Certificate, crypto.Signer, error) {
	block, _ := pem.Decode([]byte(ca))
	if block == nil {
		return nil, nil, errs.New(errs.Internal, "stored CA: expected PEM")
	}
	parent, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "stored CA: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	signer, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, nil, errs.New(errs.Internal, "stored CA: expected a key that signs")
	}
	return parent, signer, nil
}

// ParseSerial reads a serial number in hexadecimal, as a ban of a certificate has it; ok is
// false for one that no certificate of ours has.
func ParseSerial(text string) (serial *big.Int, ok bool) {
	serial, ok = new(big.Int).SetString(text, 16)
	return serial, ok && serial.Sign() > 0 && len(serial.Bytes()) <= 20 && !strings.ContainsAny(text, "+-_")
}
