// Package tags answers what one may ask of any resource by its ARN: add tags,
// remove tags, list them. It keeps none itself. Tags are part of the document
// they describe, so that a resource and its tags replicate, and are deleted, as
// one; the rooms above say how to reach theirs as an [Owner], and cmd
// introduces them.
//
// [Check] is the rule for the tags a resource is created with, so that creating
// and tagging agree.
//
// What holds:
//
//   - An ARN must be of the caller's account and of a Region that this
//     installation answers for; any other is refused before anything is looked
//     up, so nobody learns what others have.
//   - A resource has at most 50 tags. Keys that start with "aws:" are reserved:
//     they are told, never counted, and nobody adds, changes or removes them.
//   - Adding what is there and removing what is not are no errors, and write
//     nothing.
//
// Source: engagement 0, 1.3, 12; access 5.2.
package tags
