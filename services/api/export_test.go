// SPDX-License-Identifier: Apache-2.0

package api

// Followed counts streams of events.
func Followed() (begin func(tenant string) (end func(), err error)) { return newFollowed().begin }

// KeepUpTo has answers above n bytes not be kept.
func (s *Server) KeepUpTo(n int) { s.keptMax = n }
