// SPDX-License-Identifier: Apache-2.0

package link

// DeliverOverhead is what each Deliver, each Publish, each filter of a Subscribe
// or Unsubscribe and each Ack count against a window beyond their bytes, in
// bytes.
const DeliverOverhead = 16

// identifierCost is what a Subscription Identifier of a Deliver counts: its
// property byte and its longest Variable Byte Integer [MQTT-3.3.2.3.8].
const identifierCost = 5

// DeliverCost is what a Deliver counts against the credit of its channel, in
// bytes: size is the Size of its message, ids how many Subscription Identifiers
// it has. Both ends count with it, the broker before it sends and the gateway
// when it has received, so that they agree on what is left.
func DeliverCost(size, ids int) int { return size + DeliverOverhead + identifierCost*ids }

// Cost is what f counts against the window of its channel, in bytes: a Publish
// its message, a Subscribe and an Unsubscribe their filters, an Ack its
// overhead. Frames of which a client cannot send any number count nothing. Both ends count with it, the gateway when it sends and the
// broker when it has done the work.
func (f *UpFrame) Cost() int {
	switch f.Kind {
	case UpPublish:
		return f.Message.Size() + DeliverOverhead
	case UpSubscribe:
		n := len(f.Subscribe) * DeliverOverhead
		for i := range f.Subscribe {
			n += len(f.Subscribe[i].Filter)
		}
		return n
	case UpUnsubscribe:
		n := len(f.Unsubscribe) * DeliverOverhead
		for _, filter := range f.Unsubscribe {
			n += len(filter)
		}
		return n
	case UpAck:
		return DeliverOverhead
	case UpOpen, UpCredit, UpTooLarge, UpClose, UpQuery, UpLimits, UpPaused:
	}
	return 0
}
