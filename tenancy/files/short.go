// SPDX-License-Identifier: Apache-2.0

package files

import "strings"

// shortMost is how long a message is, in bytes. A line may be as long as the file, and what is
// said of it goes into answers, events and records.
const shortMost = 300

// short leaves out the middle of a long message.
func short(message string) string {
	if len(message) <= shortMost {
		return message
	}
	const end = 80
	return strings.ToValidUTF8(message[:shortMost-end], "") + "…" + strings.ToValidUTF8(message[len(message)-end:], "")
}
