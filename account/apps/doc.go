// Package apps keeps an account's apps (projects) and their settings. An app
// is the space in which endpoints, segments, campaigns and journeys live;
// every other room asks this one whether it exists and whose it is.
//
// An app is one document. Deleting it is immediate: its row becomes a
// tombstone that stays for ever, so that nothing that arrives late from
// another Region can revive what belonged to it, and a purge row is written
// with it. [Service.Run] follows the purge rows and removes, in bounded
// batches, what the rooms above keep for a deleted app; those rooms name their
// rows with [Service.Contains].
//
// Source: engagement 1.1 to 1.3; design 5, Merge rules.
package apps
