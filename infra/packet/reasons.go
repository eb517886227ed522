// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// reasons is which Reason Codes a packet may carry (table 2-6 of MQTT 5).
// CONNACK has all the failures of its own table; an unknown one is let pass,
// since only clients read it.
var reasons = map[Type][]mqtt.ReasonCode{
	PUBACK:  publishReasons,
	PUBREC:  publishReasons,
	PUBREL:  {mqtt.Success, mqtt.PacketIdentifierNotFound},
	PUBCOMP: {mqtt.Success, mqtt.PacketIdentifierNotFound},
	SUBACK: {
		mqtt.Success, mqtt.GrantedQoS1, mqtt.GrantedQoS2, mqtt.UnspecifiedError, mqtt.ImplementationSpecificError,
		mqtt.NotAuthorized, mqtt.TopicFilterInvalid, mqtt.PacketIdentifierInUse, mqtt.QuotaExceeded,
		mqtt.SharedSubscriptionsNotSupported, mqtt.SubscriptionIdentifiersNotSupported, mqtt.WildcardSubscriptionsNotSupported,
	},
	UNSUBACK: {
		mqtt.Success, mqtt.NoSubscriptionExisted, mqtt.UnspecifiedError, mqtt.ImplementationSpecificError,
		mqtt.NotAuthorized, mqtt.TopicFilterInvalid, mqtt.PacketIdentifierInUse,
	},
	DISCONNECT: {
		mqtt.Success, mqtt.DisconnectWithWill, mqtt.UnspecifiedError, mqtt.MalformedPacket, mqtt.ProtocolError,
		mqtt.ImplementationSpecificError, mqtt.NotAuthorized, mqtt.ServerBusy, mqtt.ServerShuttingDown,
		mqtt.BadAuthenticationMethod, mqtt.KeepAliveTimeout, mqtt.SessionTakenOver, mqtt.TopicFilterInvalid,
		mqtt.TopicNameInvalid, mqtt.ReceiveMaximumExceeded, mqtt.TopicAliasInvalid, mqtt.PacketTooLarge,
		mqtt.MessageRateTooHigh, mqtt.QuotaExceeded, mqtt.AdministrativeAction, mqtt.PayloadFormatInvalid,
		mqtt.RetainNotSupported, mqtt.QoSNotSupported, mqtt.UseAnotherServer, mqtt.ServerMoved,
		mqtt.SharedSubscriptionsNotSupported, mqtt.ConnectionRateExceeded, mqtt.MaximumConnectTime,
		mqtt.SubscriptionIdentifiersNotSupported, mqtt.WildcardSubscriptionsNotSupported,
	},
	AUTH: {mqtt.Success, mqtt.ContinueAuthentication, mqtt.ReAuthenticate},
}

var publishReasons = []mqtt.ReasonCode{
	mqtt.Success, mqtt.NoMatchingSubscribers, mqtt.UnspecifiedError, mqtt.ImplementationSpecificError, mqtt.NotAuthorized,
	mqtt.TopicNameInvalid, mqtt.PacketIdentifierInUse, mqtt.QuotaExceeded, mqtt.PayloadFormatInvalid,
}

func legalReason(t Type, c mqtt.ReasonCode) bool {
	return c == mqtt.Success || slices.Contains(reasons[t], c)
}

// LegalReason returns c if packets of type t may carry it, else the nearest
// that they may: DISCONNECT of 0x8A (banned) becomes 0x98, others 0x80.
func LegalReason(t Type, c mqtt.ReasonCode) mqtt.ReasonCode {
	switch {
	case t == CONNACK || legalReason(t, c):
		return c
	case t == DISCONNECT && c == mqtt.Banned:
		return mqtt.AdministrativeAction
	case t == DISCONNECT && c == mqtt.ServerUnavailable:
		return mqtt.ServerBusy
	}
	return mqtt.UnspecifiedError
}

// ReturnCode is the CONNACK return code of 3.x for c [MQTT-3.2.2.3 of 3.1.1].
func ReturnCode(c mqtt.ReasonCode) byte {
	switch c {
	case mqtt.Success:
		return 0
	case mqtt.UnsupportedProtocolVersion:
		return 1
	case mqtt.ClientIdentifierNotValid:
		return 2
	case mqtt.BadUserNameOrPassword:
		return 4
	case mqtt.NotAuthorized, mqtt.Banned, mqtt.BadAuthenticationMethod:
		return 5
	}
	return 3
}

// returnCodes are the Reason Codes of the return codes of 3.x.
var returnCodes = [...]mqtt.ReasonCode{
	mqtt.Success, mqtt.UnsupportedProtocolVersion, mqtt.ClientIdentifierNotValid,
	mqtt.ServerUnavailable, mqtt.BadUserNameOrPassword, mqtt.NotAuthorized,
}
