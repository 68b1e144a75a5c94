// Package aws holds the words every other package shares: who calls, what can
// go wrong, how resources are named, and how identifiers and times are written.
//
// It knows no API, no storage and no network. A [Fault] has a kind and a
// sentence; package wire turns the kind into the exception that the called
// service models, so that one fault speaks every protocol.
package aws
