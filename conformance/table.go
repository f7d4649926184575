package conformance

import "slices"

// promise is one of the promises of package polymq, whose documentation has
// them under the same numbers.
type promise struct {
	number int
	name   string
	text   string
}

var promises = []promise{
	{1, "Confirmed", "Publish returns nil only when every queue that the message was routed to has it, as safely as the queue was declared, and unchanged."},
	{2, "ThreeOutcomes", "Confirmed; refused (ErrRejected); unknown (ErrUnconfirmed: the connection or ctx ended first). Unknown is never reported as another. Within the deduplication window a retry leaves no second copy."},
	{3, "Unroutable", "A message that no queue takes is ErrUnroutable on that very call, for that very message, unless the publisher said DropUnroutable. A delayed message is routed when due; what is unroutable then goes to the alternate exchange, else to UnroutableQueue."},
	{4, "NothingMadeUp", "Publishing to an exchange that does not exist is ErrNotFound; nothing is created."},
	{5, "OneCopy", "A queue gets one copy, however many bindings, paths or keys match."},
	{6, "Order", "Messages published one after another by one publisher reach one consumer of a queue in that order. A redelivered message comes where Features.Requeue says."},
	{7, "Bounded", "A publisher holds at most its window; a full window blocks, and ctx ends the wait."},
	{8, "Idempotent", "Declaring the same again is nothing; declaring it differently is ErrConflict, naming the field, from any process."},
	{9, "InForce", "When Declare, Bind, Unbind or a deletion has returned, every publish that starts afterwards, from any process, is routed by it."},
	{10, "Durable", "Durable exchanges, queues, bindings and messages survive a broker restart."},
	{11, "AnyName", "Names are 1 to 255 bytes of UTF-8, routing keys 0 to 255, without control characters; amq. is reserved, and amq.direct, amq.topic, amq.fanout, amq.headers and amq.match are always there."},
	{12, "Routing", "Direct, fanout, topic and headers exchanges, the default exchange, bindings between exchanges, alternate exchanges, CC and BCC route as RabbitMQ does."},
	{13, "AtLeastOnce", "An unsettled message comes again: at once when its subscriber closes, within the lease when the process dies."},
	{14, "HeldIsHeld", "While its connection lives, what a subscriber holds goes to nobody else, however long a handler takes. A hold that was lost makes Ack return ErrLost; it never settles another message."},
	{15, "Counted", "Delivery.Attempt is 1 plus the deliveries that ended in Nack, lease expiry, a lost connection, or were given back by Close after they had been handed out; what was only prefetched does not count."},
	{16, "ItsQueueOnly", "A nacked message returns to its own queue, never to the exchange, and not before its delay."},
	{17, "DeadLetters", "Rejected, expired, overflowing and exhausted messages go to the queue's dead-letter exchange with queue, reason, count and time on them, or are dropped where there is none."},
	{18, "Prefetch", "A subscriber holds at most Prefetch unsettled messages."},
	{19, "Drained", "Run ends by finishing what runs, giving back the rest at once."},
	{20, "SettledOnce", "A second settlement is ErrSettled; it harms nothing."},
	{21, "ComesBack", "Publishers and subscribers go on by themselves after a cut connection or a broker restart; in the meantime calls wait for their ctx."},
	{22, "Ends", "Close is idempotent, ends within its ctx and leaves no goroutine."},
	{23, "RefusedEarly", "What cannot be done is refused on the earliest call, by an error that says what to do; a feature is done or refused, never a silent no-op."},
	{24, "SideBySide", "What is stored carries a version; this version refuses, and never rewrites, what a newer one wrote."},
}

// rows is the suite, by promise.
var rows = func() []row {
	all := slices.Concat(
		publishRows, unroutableRows, orderRows, topologyRows, inForceRows, nameRows, routingRows, hashRows,
		consumeRows, holdRows, runRows, settleRows, deadLetterRows, recoveryRows, lifecycleRows, errorRows,
		expiryRows, limitRows, priorityRows, activeRows, temporaryRows, delayRows, redriveRows, pauseRows)
	slices.SortStableFunc(all, func(a, b row) int { return a.promise - b.promise })
	return all
}()
