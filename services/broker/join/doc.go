// SPDX-License-Identifier: Apache-2.0

// Package join lets a new broker into a cluster with one address and a token
// (docs/adr/0028). An Authority holds the key of the region's CA: it makes tokens and
// signs certificates. A Server answers new brokers and those whose certificates end
// soon; Join and Renew ask it; Renewer asks in time.
//
//	operator ──cluster token create──▶ Authority ──token──▶ operator
//	new broker ──TLS, pinned to the CA by the token: token, CSR──▶ Server
//	           ◀──certificate, CA, what the cluster is made with──
//
// A token is bound to the CA in both directions. The new broker talks only to who shows
// a certificate of the CA whose fingerprint the token has; brokers believe a token by a
// MAC under a key that follows from the CA's. So nothing of it is stored before it is
// used, and each broker that has the CA's key can check it.
//
// The package must not know what members, partitions or the bus are: Config says who may
// have a certificate, and what was used. A Server owns the goroutines of net/http.
package join
