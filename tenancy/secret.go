// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"log/slog"
	"net/mail"
	"strings"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// Lengths of chosen passwords. The lower bounds follow NIST SP 800-63B §5.1.1.2
// for people; devices, whose passwords are often burnt in, may have shorter
// ones. The upper bound, in bytes, bounds what one attempt can make us hash.
const (
	accountPasswordMin = 8 // characters
	devicePasswordMin  = 6 // characters
	passwordMax        = 1024
)

// ValidAccountPassword checks a password that a person chose to sign up with:
// at least 8 characters, at most 1,024 bytes, and not the email address. The
// error is Invalid with Code "password_invalid".
func ValidAccountPassword(password, email string) error {
	if err := validPassword(password, accountPasswordMin); err != nil {
		return err
	}
	if strings.EqualFold(password, email) {
		return errs.Coded(errs.Invalid, "password_invalid", "the password is the email address; choose another")
	}
	return nil
}

// ValidDevicePassword checks the chosen password of a credential: at least 6
// characters, at most 1,024 bytes, and not the username. The error is Invalid
// with Code "password_invalid".
func ValidDevicePassword(password, username string) error {
	if err := validPassword(password, devicePasswordMin); err != nil {
		return err
	}
	if password == username {
		return errs.Coded(errs.Invalid, "password_invalid", "the password is the username; choose another, or leave it out to have one generated")
	}
	return nil
}

func validPassword(password string, minimum int) error {
	const code = "password_invalid"
	switch n := utf8.RuneCountInString(password); {
	case len(password) > passwordMax:
		return errs.Coded(errs.Invalid, code, "a password has at most %d bytes, this one has %d", passwordMax, len(password))
	case n < minimum:
		return errs.Coded(errs.Invalid, code, "a password has at least %d characters, this one has %d", minimum, n)
	}
	return nil
}

// ValidEmail checks that s looks like an address that mail can be sent to: one
// @, something on both sides, a dot or "localhost" after it, no spaces, at most
// 254 bytes (RFC 5321 §4.5.3.1.3), and an address to whoever sends mail (RFC 5322
// §3.4.1). Only a sent mail can tell more. The error is
// Invalid with Code "email_invalid".
func ValidEmail(s string) error {
	const code = "email_invalid"
	local, domain, ok := strings.Cut(s, "@")
	switch {
	case !ok, local == "", domain == "", strings.Contains(domain, "@"), len(s) > 254, !utf8.ValidString(s):
		return errs.Coded(errs.Invalid, code, "expected an email address like ops@acme.example, found %q", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7F }):
		return errs.Coded(errs.Invalid, code, "an email address has no spaces or control characters: %q", s)
	case domain != "localhost" && (!strings.Contains(domain, ".") || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".")):
		return errs.Coded(errs.Invalid, code, "expected a domain with a dot after the @, found %q", domain)
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
		return errs.Coded(errs.Invalid, code, "expected an email address like ops@acme.example, without a name and quotes, found %q", s)
	}
	return nil
}

// Secret is text that is shown once, or taken in, and never written to a log or
// the audit log, which know it by this type. Its JSON is the text itself, since
// answers have to show it.
type Secret string

// LogValue keeps a secret out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String keeps a secret out of formatted text; string(s) is the text.
func (Secret) String() string { return "[redacted]" }

// GoString is String for %#v.
func (Secret) GoString() string { return "[redacted]" }
