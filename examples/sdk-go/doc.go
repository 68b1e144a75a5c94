// Command sdk-go speaks to Everpoint with the public AWS SDK for Go, unmodified:
// the calls of a first campaign, and ten mistakes, each of which must come back
// as the exception type that the SDK knows, with a message that says what is
// wrong. It prints a line for each check and ends with the first that fails.
//
//	examples/run.sh --do go run ./examples/sdk-go
//
// or, against a Region that runs, after reading its local.env into the shell.
// examples/awscli.sh does the same with the AWS CLI.
package main
