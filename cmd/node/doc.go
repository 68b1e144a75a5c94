// Package node assembles one node: it makes every room, introduces them to each
// other, and runs them. The command serve and the simulation start the same
// assembly; the latter brings its own clock, randomness and dialler.
//
// It starts from the ground floor up and stops from the top floor down: the
// door closes, engines stop taking up work, deliveries finish, the store closes
// last.
package node
