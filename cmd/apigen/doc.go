// Command apigen turns the models into Go: for each service a package under
// api/ with its types, its schemas and its operations, and the page that
// accounts for every operation, docs/reference/coverage.md.
//
//	go run ./cmd/apigen           write what differs
//	go run ./cmd/apigen --check   write nothing; list what differs and fail
//
// Its output depends on nothing but models/, models/overlay/ and
// docs/reference/mounted.txt: the same input gives the same bytes. Generated
// files hold data only; the codecs that read the schemas are in aws/wire.
package main
