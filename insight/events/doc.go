// Package events takes in what apps report and hands every event record on.
//
// # In
//
// PutEvents writes, in one update, the endpoint that each item of a batch
// patches and a fact for each of its events; the rooms that count, trigger and
// export follow the log. What is wrong with an endpoint or an event is told
// where it stands in the batch and stops nothing else: an event of an endpoint
// whose patch was refused is still an event, save where the endpoint's id
// itself cannot be one. An absent Endpoint is an empty one.
//
// Names that begin with an underscore are the original's; ones it does not know
// are taken too. Those by which the service tells what it did (_email., _SMS.,
// the sends of campaigns and journeys) are refused: see isTold.
//
// An event that comes again within 24 hours is accepted and not told twice.
// Clients retry, after a failover too; but many also give the same id to every
// event. So an event is the same only if endpoint, id and everything the client
// said of it are. The memory is kept for each endpoint in two rows of a day,
// with the latest 1024 events of the day each; the id of the fact is made from
// the same parts, which is how repeats that met in two Regions are told apart
// by whoever reads both.
//
// # Out
//
// An app has at most one event stream, which names a Kinesis stream or a
// Firehose. [Files] is the destination that works without either: one JSON
// object a line, below a directory, exactly once.
//
// Sources: channels-and-events 9.1, 9.2, 10, 11, 13; engagement 10, 12.
package events
