package wire

import "reflect"

// Protocol is how a service writes its requests and responses.
type Protocol uint8

// The protocols.
const (
	RestJSON1 Protocol = iota
	AWSJSON10
	AWSJSON11
	AWSQuery
)

var protocolNames = [...]string{"restJson1", "awsJson1_0", "awsJson1_1", "awsQuery"}

// String returns the protocol's name as the models write it.
func (p Protocol) String() string { return protocolNames[p] }

// Plane says where a group of Regions serves an operation. The models' overlays
// have the table. Source: docs/internals/control-plane.md.
type Plane uint8

// The planes. Reads of any kind are on the data plane.
const (
	Unclassified Plane = iota // of an operation that no overlay names: a defect of the table
	DataPlane                 // in the Region that was asked
	ControlPlane              // in the control Region alone
)

// A Service is one API: its names and all its operations.
type Service struct {
	Name         string // "Pinpoint"
	Package      string // the generated package: "pinpoint"; prefixes names in the ledger
	Version      string // "2016-12-01"
	SigningName  string // in the credential scope: "mobiletargeting"
	ARNNamespace string // in resource names: "mobiletargeting"
	ActionPrefix string // in policies: "mobiletargeting"
	Global       bool   // its resources carry no Region
	Protocol     Protocol

	TargetPrefix  string   // awsJson: X-Amz-Target is TargetPrefix.Operation
	TargetAliases []string // other prefixes that clients send
	XMLNamespace  string   // awsQuery

	Operations []*Op // in the order of their definition
}

// Op is the part of an operation that does not depend on its Go types: what
// the mux, the door, the audit trail and the ledger read.
type Op struct {
	Name    string   // "CreateCampaign"
	Method  string   // restJson1
	URI     string   // restJson1: "/v1/apps/{ApplicationId}/campaigns"
	Aliases []string // restJson1: further paths of the same operation
	Status  int      // of success; 200 unless the model says otherwise
	Service *Service
	Plane   Plane // where a group of Regions serves it

	Input, Output *Schema
	Errors        []*Schema // modelled exceptions

	Unsigned   bool // may be called without a signature
	Idempotent bool // the model says that repeating it is harmless
	Remembered bool // every Region keeps the first answer by the invocation id of AWS SDKs
	FoldCase   bool // literal path segments match in any case
	Absent     bool // it will never exist here: answers as an unknown operation

	in, out reflect.Type
}

// Key names the operation in the ledger: "pinpoint.CreateCampaign".
func (o *Op) Key() string { return o.Service.Package + "." + o.Name }

// InputType is the Go type of the operation's input.
func (o *Op) InputType() reflect.Type { return o.in }

// OutputType is the Go type of the operation's output.
func (o *Op) OutputType() reflect.Type { return o.out }

// Action names the operation in policies: "mobiletargeting:CreateCampaign".
func (o *Op) Action() string {
	p := o.Service.ActionPrefix
	if p == "" {
		p = o.Service.SigningName
	}
	return p + ":" + o.Name
}

// An Operation is an Op with the Go types of its input and output.
type Operation[I, O any] struct{ Op }

// Define makes the operation described by op and adds it to its service. Only
// generated code calls it, while packages initialise.
func Define[I, O any](op Op) *Operation[I, O] {
	o := &Operation[I, O]{op}
	o.in, o.out = reflect.TypeFor[I](), reflect.TypeFor[O]()
	if o.Status == 0 {
		o.Status = 200
	}
	if o.Input == nil {
		o.Input = EmptySchema
	}
	if o.Output == nil {
		o.Output = EmptySchema
	}
	o.Service.Operations = append(o.Service.Operations, &o.Op)
	return o
}
