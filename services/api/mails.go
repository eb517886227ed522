// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"

	"github.com/manormq/manor/tenancy/store"
)

// Mail is a mail in plain text.
type Mail struct {
	To      string // one address
	Subject string
	Text    string
}

// Mailer sends mails; see services/api/mail. The error is Unavailable.
type Mailer interface {
	Send(ctx context.Context, m Mail) error
}

// The mails have codes and no links: programs that look at mails follow links.

func verificationMail(email, tenant, code string) Mail {
	return Mail{To: email, Subject: "Your sign-up for " + tenant, Text: fmt.Sprintf(
		"Somebody, probably you, signs up for the tenant %s with this address.\n\n"+
			"The code is\n\n    %s\n\n"+
			"Send it within %v to finish:\n\n"+
			"    POST /v1/signup/verify {\"code\":\"%s\"}\n\n"+
			"If it was not you, there is nothing to do: without the code nothing is made.\n", tenant, code, store.VerificationLife, code)}
}

func invitationMail(organization, email, token string) Mail {
	return Mail{To: email, Subject: "Invitation to " + organization, Text: fmt.Sprintf(
		"You are invited to the organization %s.\n\n"+
			"Accept within 7 days, with a password of your own:\n\n"+
			"    POST /v1/invitations:accept {\"invitation\":\"%s\",\"password\":\"…\"}\n\n"+
			"If you do not know why, there is nothing to do.\n", organization, token)}
}
