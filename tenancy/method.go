// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// The methods by which a client shows who it is. docs/identities.md has the table
// of what each of them applies to, decides and passes on.
const (
	// AuthCertificate is a client certificate that needs no password.
	AuthCertificate = "certificate"
	// AuthJWT is a token of an Issuer as the password.
	AuthJWT = "jwt"
	// AuthPassword is the user name and the password of a credential.
	AuthPassword = "password"
	// AuthSCRAM is MethodSCRAM, which a client asks for in CONNECT.
	AuthSCRAM = "scram"
)

// AuthMethods are all methods, in the order that holds for a tenant that has chosen
// none: what costs least comes first.
func AuthMethods() []string { return []string{AuthCertificate, AuthJWT, AuthPassword, AuthSCRAM} }

// ValidAuthMethods checks that there is at least one method, that each exists, and
// that none is there twice. The error is Invalid with Code "auth_methods_invalid".
func ValidAuthMethods(methods []string) error {
	const code = "auth_methods_invalid"
	if len(methods) == 0 {
		return errs.Coded(errs.Invalid, code, "expected at least one of the methods %s: without any no client could connect", strings.Join(AuthMethods(), ", "))
	}
	for i, m := range methods {
		switch {
		case !slices.Contains(AuthMethods(), m):
			return errs.Coded(errs.Invalid, code, "expected methods of %s, found %.40q", strings.Join(AuthMethods(), ", "), m)
		case slices.Contains(methods[:i], m):
			return errs.Coded(errs.Invalid, code, "the method %s is there twice", m)
		}
	}
	return nil
}

// Methods are those of the tenant, in the order in which they are tried.
func (t *Tenant) Methods() []string {
	if len(t.AuthMethods) == 0 {
		return AuthMethods()
	}
	return t.AuthMethods
}

// Takes reports whether the method is one of the tenant's.
func (t *Tenant) Takes(method string) bool { return slices.Contains(t.Methods(), method) }

// CodePassed is the Code of the error of a method that does not apply to what a
// client has shown; the next one is asked.
const CodePassed = "method_passed"

// CodeMethodNotTaken is the Code of the error of a method that is none of the
// tenant's.
const CodeMethodNotTaken = "method_not_taken"
