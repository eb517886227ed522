// SPDX-License-Identifier: Apache-2.0

// Package audit keeps, for each organization, a log of who changed what: a chain
// of records, each with the hash of the one before, in buckets of the bus. A
// change is noted before it is made and recorded before it is answered (see
// Log.Begin). It owns no goroutine but that of Run. It knows neither HTTP nor
// what is changed.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Kinds of actors.
const (
	// ActorKey is an API key, ActorMember a member of the organization.
	ActorKey    = "key"
	ActorMember = "member"
	// ActorSignUp is somebody who was not known yet.
	ActorSignUp = "sign-up"
	// ActorClaim is a device that has redeemed a claim.
	ActorClaim = "claim"
	// ActorOperator is whoever runs the installation.
	ActorOperator = "operator"
)

// Actor is who made a change.
type Actor struct {
	Kind string `json:"kind" enum:"key,member,sign-up,claim,operator"`
	ID   string `json:"id,omitempty" doc:"Of the key or the member." example:"key_01j9zq5e6v8x7w0r3t2y4u6i8o"`
}

// Outcomes of a change.
const (
	// Done: the change was made.
	Done = "done"
	// Unknown: it was begun, and whether it was made is not known, since a
	// process died or the bus was away meanwhile.
	Unknown = "unknown"
	// Denied: the installation's policy has refused it; After says why.
	Denied = "denied"
)

// Record is one change. It is a plain value. Its JSON, with Hash empty, is what
// Hash is of: fields are added at the end only, with omitempty.
type Record struct {
	// N counts the records of the organization from 1.
	N uint64 `json:"n"`
	// ID is random, and the same in the note and in the record.
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	At           time.Time `json:"at"`
	Actor        Actor     `json:"actor"`
	// Address is the true IP address, without a port.
	Address   string `json:"address"`
	Method    string `json:"method"`
	Operation string `json:"operation"`
	// Tenant is empty if the change is of the organization.
	Tenant string `json:"tenant,omitempty"`
	// Target says what was changed, such as "credential sensor-1".
	Target  string `json:"target"`
	Outcome string `json:"outcome"`
	// Before and After are JSON, or nil where there was or is nothing.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Previous is the Hash of record N-1; empty in the first.
	Previous string `json:"previous"`
	// Hash is SHA-256 in hexadecimal.
	Hash string `json:"hash"`
}

// sum is what Hash shall be.
func (r Record) sum() (string, error) {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		return "", errs.New(errs.Internal, "encode an audit record: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Decode reads a record as it is stored or exported. The error is Invalid.
func Decode(line []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields() // the hash would not cover them
	if err := d.Decode(&r); err != nil {
		return r, errs.New(errs.Invalid, "expected an audit record in JSON: %w", err)
	}
	return r, nil
}
