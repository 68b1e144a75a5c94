// Package carriers is the world of `everpoint local`, the tests over real
// processes and the benchmarks: an SMTP relay and an SMS centre that take what
// a node sends, and the outbox, where a person or a test sees what "went out".
//
// The servers are the couriers' own doubles (courier/smtp/smtptest,
// courier/smpp/smpptest); this package joins them to one outbox.
package carriers
