// Package smtptest is an SMTP server for tests, benchmarks and `everpoint
// local`: it takes mail, hands it to a function, keeps the latest in a bounded
// mailbox, and fails on request.
//
// It is a real server: it speaks PIPELINING, 8BITMIME, SMTPUTF8, SIZE,
// ENHANCEDSTATUSCODES, STARTTLS and AUTH (PLAIN and LOGIN) over any
// net.Listener, and is strict where a lenient server would hide a client's
// mistake: commands out of order, content above 127 without BODY=8BITMIME,
// addresses above 127 without SMTPUTF8, and line feeds without carriage return
// are refused.
//
// A [Rule] makes it misbehave at one [Stage] of one message:
//
//	AtMail     in place of the reply to MAIL
//	AtRcpt     in place of the reply to RCPT
//	AtData     in place of the 354
//	AfterData  after the 354, before any content was read
//	InContent  after the first line of the content
//	AtDot      after the final dot, before the message is stored
//	AfterStore after the message is stored, before the 250
//
// A message is stored once or not at all: it is in the mailbox and was given to
// the sink exactly when its conversation came past AtDot.
package smtptest
