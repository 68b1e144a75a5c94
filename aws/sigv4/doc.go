// Package sigv4 proves who sent a request: it verifies AWS Signature Version 4
// in its header and its query (presigned) form, and signs for our own clients.
//
// A [Verifier] works in a fixed order, and each step has its own fault:
//
//  1. parse: MissingToken if nothing is signed, else IncompleteSignature
//  2. timestamp: IncompleteSignature
//  3. scope (date, terminator, service, Region): BadSignature
//  4. clock: BadSignature, or RequestExpired for a presigned request
//  5. access key: UnknownKey or ExpiredToken
//  6. signature, compared in constant time: BadSignature
//  7. body hash and headers that must be signed: BadSignature
//
// No secret is looked up before step 5, so what a stranger sends costs parsing
// only. The canonical request is computed from the request as received: raw
// path, raw query, Host and header values that nothing has rewritten.
//
// Every path segment is encoded a second time, as all services here do; the S3
// variant (encoded once, not normalised) and the S3 chunk formats are not
// accepted. Derived signing keys are kept in a bounded cache that notices a
// changed secret by itself.
//
// Source: access 1.2 to 1.7. Asymmetric signatures (AWS4-ECDSA-P256-SHA256)
// are answered as IncompleteSignature.
package sigv4
