// SPDX-License-Identifier: Apache-2.0

package api

// KeepUpTo has answers above n bytes not be kept.
func (s *Server) KeepUpTo(n int) { s.keptMax = n }
