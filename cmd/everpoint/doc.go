// One file for each subcommand, named after it; main.go lists them. client.go
// is the signed client that the operator's commands share, print.go how they
// print.

package main
