// Package templates holds message templates and renders them: the five kinds
// (email, SMS, voice, push, in-app), their versions, and the language their
// text is written in.
//
// # Versions
//
// A template belongs to an account and has a name that is unique for its type.
// It is created with version 1, which is active. An update overwrites the
// latest version, or adds one with the next number; numbers are never used
// twice. A message names a template, and then says what the active version says
// when it is sent, or a version of it; [Resolve] answers both. What is deleted
// stays for that purpose, out of everybody else's sight, for 540 days.
//
// Chosen where the specification is silent: an update replaces the whole
// content, a member left out is gone; deleting the last version deletes the
// template; lists are in the order of names and of version numbers; a list item
// shows the active version; an empty text counts as absent.
//
// # The language
//
// A template is Handlebars text. [Parse] compiles it once, with every mistake
// told by line and column; the [Template] never changes afterwards and may be
// executed by any number of goroutines. Execution asks a [Vars] for each name
// (so that a caller may answer from its own documents without copying them),
// takes time and randomness from a [Context] (so that a resend renders the same
// body) and appends to the caller's buffer.
//
//	{{Attributes.color.[0]}}   a value; escaped in HTML parts
//	{{{x}}} {{&x}}             the same, never escaped
//	{{#if x}}…{{else}}…{{/if}} blocks: if, unless, each, with, the comparisons, a bare name
//	{{upper (lower x)}}        helpers, nested by parentheses
//	{{#* inline "n"}}…{{/inline}} {{> n}}   inline partials
//	{{~x~}} {{! … }} {{!-- … --}} \{{       white space, comments, a literal {{
//
// The helpers and what each does are the tables in helpers_logic.go,
// helpers_text.go, helpers_date.go and helpers_number.go.
//
// # Names that have no value
//
// A name is looked up in the enclosing #each and #with items from the inside
// out, then in the Vars, then in the [Defaults]. One that is nowhere renders as
// nothing and is listed in [Result].Missing; so is the fate of a helper whose
// argument has no value. Result.Unusable lists values a helper could not use (a
// text where a number is needed). What follows is the caller's rule: an email
// with either is a rendering failure, other channels send the rest. Tests ask
// without listing: in #if, #each, and, or, not, eq and their like a name without
// value is false. neq is the opposite of eq, so it holds for such a name.
//
// # What counts as true, and as equal
//
// Nothing, "", "false", false, the number 0 and empty lists and maps are false;
// a list of one value is as true as that value. Endpoint attributes are always
// text, which is why the text "false" is false; the text "0" is true. Two sides
// are compared as decimals, exactly, when both are decimals, and else as text.
//
// # Lists
//
// A bare list renders its values joined by ", "; a list of one is that value.
// #each visits the first 15 items.
//
// # Bounds
//
// Source 600,000 characters and 20,000 tags; blocks, parentheses, paths and
// partial calls 32 deep; 32 arguments; output 1 MiB; 250,000 units of work for
// one execution, where a unit is a step or 64 bytes that a helper reads or
// writes. Past a bound, Parse answers a [SyntaxError] and Execute one of
// [ErrOutputTooLong], [ErrTooMuchWork], [ErrTooDeep].
//
// # What is not here
//
// Handlebars' raw blocks, partial blocks, block parameters and partials chosen
// by an expression are refused by Parse with a sentence. Lines that hold only a
// block tag keep their line ends: only ~ removes white space.
//
// Sources: engagement 1.3, 5, 13.2, 13.11.
package templates
