// Command everpoint is the whole product in one binary: a node, the laptop
// edition, and the operator's commands. `everpoint help` lists them.
//
// One file for each subcommand, named after it; main.go lists them. client.go
// is the signed client that the operator's commands share, print.go how they
// print.
package main
