// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"context"
	"net/netip"
	"time"
)

// Directory answers the gateways' questions. Implementations are safe for
// concurrent use.
//
// Errors carry an errs.Kind: NotFound for a tenant, host or credential that
// does not exist, Denied for a wrong password or, with CodeTenantInactive, a
// tenant that is not active, Unavailable when the answer is not known and cannot
// be had now.
type Directory interface {
	// Tenant returns the tenant of that id. The result is shared and must not
	// be changed.
	Tenant(ctx context.Context, id string) (*Tenant, error)
	// Known is Tenant by the newest that is known, however old: who is connected
	// already is held to that, also where it is too old to let anybody in by. The error
	// is Unavailable if nothing is known and the control plane cannot be asked.
	Known(ctx context.Context, id string) (*Tenant, error)
	// TenantByHost returns the tenant that the hostname belongs to. The host
	// has no port; case does not matter.
	TenantByHost(ctx context.Context, host string) (*Tenant, error)
	// Authenticate decides about a CONNECT. Of the attempt's tenant only the id
	// is read, and it need not exist. It may take tens of milliseconds when a
	// password has to be hashed; a tenant, a username and a password that are
	// wrong take the same time, and only who has the right password hears that
	// the tenant is not active. The error has CodePassed if the attempt's method does
	// not apply to it; of AuthPassword that is not an error of its own.
	Authenticate(ctx context.Context, a Attempt) (*Identity, error)
	// Begin begins an enhanced authentication [MQTT-4.12]; the attempt has no
	// password. Its tenant is nil if the user name of the exchange has it as its
	// prefix. The error is NotFound with CodeMethodUnknown if there is no such
	// method.
	Begin(ctx context.Context, method string, a Attempt) (Exchange, error)
	// Authorize returns what a client may do that was authenticated: the default
	// grant, or what the tenant's own policy says. The error is Denied, with what the
	// client may be told, Unavailable when the answer is not known and cannot be had
	// now, or Internal when the policy cannot be followed: then nothing is granted.
	Authorize(ctx context.Context, t *Tenant, a *Arrival) (*Grant, error)
	// Device is what the tenant's registry says of that user name; nil is nothing. The
	// error is Unavailable when that is not known and cannot be had now.
	Device(ctx context.Context, t *Tenant, name string) (*Device, error)
	// Bans are the tenant's bans; nil has none.
	Bans(tenant string) *Bans
	// Flapped tells the control plane of a client that was banned for flapping, as
	// soon as that can be done. It does not wait.
	Flapped(f Flap)
	// Watch calls f for every change that live connections must hear of, until
	// ctx is done. Calls come one at a time, within 2 s of the change; f must
	// not block.
	Watch(ctx context.Context, f func(Change)) error
}

// Codes of errors Unavailable of a Directory that cannot say.
const (
	// CodeControlPlaneAway: what is asked about is not known, and the control plane,
	// which may know it, cannot be asked.
	CodeControlPlaneAway = "control_plane_away"
	// CodeControlPlaneGone: the control plane was not heard of for so long that what is
	// known is not acted on any more.
	CodeControlPlaneGone = "control_plane_gone"
	// CodeControlPlaneNever: the control plane was never heard of.
	CodeControlPlaneNever = "control_plane_never"
)

// CodeTenantInactive is the Code of the error of a tenant that is not active.
const CodeTenantInactive = "tenant_inactive"

// The Authentication Methods that are known.
const (
	MethodSCRAM = "SCRAM-SHA-256"
	// MethodJWT has one step, whose data are a token. A client that authenticates
	// again with a newer one has its connection go on.
	MethodJWT = "JWT"
)

// CodeMethodUnknown is the Code of the error of an Authentication Method that
// is not known.
const CodeMethodUnknown = "method_unknown"

// Exchange is an enhanced authentication that is under way. It is not safe for
// concurrent use.
type Exchange interface {
	// Step takes the client's Authentication Data and returns the server's. The
	// identity is nil while the client has more to say. The errors are those of
	// Authenticate.
	Step(ctx context.Context, data []byte) (answer []byte, id *Identity, err error)
}

// Attempt is one CONNECT that wants to be let in.
type Attempt struct {
	// Method is AuthPassword or AuthJWT; empty is AuthPassword.
	Method   string
	Tenant   *Tenant
	ClientID string
	// Username has lost its tenant prefix.
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Peer        netip.AddrPort
}

// Identity is who a connection is, and what it may do. It is immutable.
type Identity struct {
	// Method is that by which it was found out, of AuthMethods; empty for who needs
	// none.
	Method   string
	Tenant   *Tenant
	Username string
	// Grant is what it may do, once it was authorized.
	Grant *Grant
	// Limit is what its token limits it to, whatever it is granted; nil is no limit.
	// LimitText is the same as a text, to compare.
	Limit     *Grant
	LimitText string
	// Groups and Claims are those of the device and its token, for policies.
	Groups []string
	Claims map[string]string
	// Session is what the credential says of its sessions, or nil.
	Session *SessionOverride
	// Device is what the registry says of it, or nil. It is as of CONNECT.
	Device *Device
	// Issuer is who has issued the token, and Expires when that ends; empty and zero
	// without one.
	Issuer  string
	Expires time.Time
}

// ChangeKind is what a Change is about.
type ChangeKind uint8

// The kinds of Change.
const (
	// CredentialGone: a credential was deleted or its password changed. Its
	// connections end with 0x87.
	CredentialGone ChangeKind = iota + 1
	// TenantChanged: the tenant's state, limits or grants differ. Connections
	// of a tenant that is no longer active end with 0x8A.
	TenantChanged
	// CredentialChanged: what a credential says of its sessions differs. Its
	// connections go on with that.
	CredentialChanged
	// BansChanged: the tenant's bans differ. Connections that are banned end with
	// 0x98.
	BansChanged
	// DeviceChanged: what the registry says of a user name differs. Connections go on;
	// who judges them by it is told what it says now.
	DeviceChanged
)

// Change is what live connections must hear of.
type Change struct {
	Kind     ChangeKind
	Tenant   string
	Username string // CredentialGone, CredentialChanged, DeviceChanged
	// Device is what the registry says now; nil for nothing.
	Device *Device // DeviceChanged
	// Session is what holds now.
	Session *SessionOverride // CredentialChanged
}
