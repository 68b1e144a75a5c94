// Package api_test drives the generated services through package wire: every
// model at once, as the door meets them.
package api_test

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/api/cloudtrail"
	"github.com/everpoint/everpoint/api/cloudwatch"
	"github.com/everpoint/everpoint/api/cognitoidentity"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/iam"
	"github.com/everpoint/everpoint/api/personalizeruntime"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/api/pinpointemail"
	"github.com/everpoint/everpoint/api/smsvoice"
	"github.com/everpoint/everpoint/api/smsvoicev2"
	"github.com/everpoint/everpoint/api/sts"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

var services = []*wire.Service{
	pinpoint.Service, smsvoicev2.Service, smsvoice.Service, pinpointemail.Service, everpoint.Service,
	iam.Service, sts.Service, cloudtrail.Service, cloudwatch.Service, cognitoidentity.Service, personalizeruntime.Service,
}

const requestID = "6bd0a4f5-0000-4000-8000-000000000001"

func ctx() context.Context {
	return aws.WithCaller(context.Background(), aws.Caller{Account: "123456789012", Region: "us-east-1", RequestID: requestID})
}

// sampleRequest is a request that reaches op: its path with every label filled.
func sampleRequest(op *wire.Op, uri string) *wire.Request {
	r := &wire.Request{Method: http.MethodPost, RawPath: "/", Header: http.Header{}}
	switch op.Service.Protocol {
	case wire.RestJSON1:
		r.Method = op.Method
		var segs []string
		for seg := range strings.SplitSeq(uri, "/") {
			if strings.HasPrefix(seg, "{") {
				seg = "x%2Fy"
			}
			segs = append(segs, seg)
		}
		r.RawPath = strings.Join(segs, "/")
	case wire.AWSQuery:
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		r.Body = []byte("Action=" + op.Name + "&Version=" + op.Service.Version)
	default:
		r.Header.Set("X-Amz-Target", op.Service.TargetPrefix+"."+op.Name)
	}
	return r
}

// Every modelled operation is found by a request of its own, and what nobody
// has mounted says so in its protocol.
func TestEveryOperationIsRouted(t *testing.T) {
	m := wire.NewMux(services...)
	total := 0
	for _, s := range services {
		for _, op := range s.Operations {
			for _, uri := range append([]string{op.URI}, op.Aliases...) {
				r := sampleRequest(op, uri)
				match, err := m.Find(r)
				if op.Absent {
					if err == nil || aws.KindOf(err) != aws.KindUnknownOperation || match.Service != s {
						t.Errorf("%s will never exist: got %v", op.Key(), err)
					}
					continue
				}
				if err != nil || match.Op != op {
					t.Errorf("%s: found %v, %v", op.Key(), match.Op, err)
					continue
				}
				if resp := match.Invoke(ctx(), r); resp.Status != 501 || !strings.Contains(string(resp.Body)+resp.Header.Get("X-Amzn-Errortype"), "NotImplemented") {
					t.Errorf("%s: %d %s", op.Key(), resp.Status, resp.Body)
				}
				total++
			}
		}
	}
	if got := len(m.Mounted()); got != 0 {
		t.Errorf("%d operations mounted by nobody", got)
	}
	if total < 480 {
		t.Errorf("only %d operations routed", total)
	}
}

// The numbers of operations that the house's plan counts on.
func TestOperationCounts(t *testing.T) {
	for s, want := range map[*wire.Service]int{
		pinpoint.Service: 122, smsvoicev2.Service: 90, smsvoice.Service: 8, pinpointemail.Service: 42,
		iam.Service: 164, sts.Service: 9, cloudtrail.Service: 57, cloudwatch.Service: 38,
		cognitoidentity.Service: 23, personalizeruntime.Service: 3, everpoint.Service: 17,
	} {
		if got := len(s.Operations); got != want {
			t.Errorf("%s has %d operations, want %d", s.Name, got, want)
		}
	}
}

// Every generated type fits its schema: a plan is compiled for each, which
// panics where a field is missing or of the wrong type.
func TestTypesFitTheirSchemas(t *testing.T) {
	for _, s := range services {
		for _, op := range s.Operations {
			for _, side := range []struct {
				rt     reflect.Type
				schema *wire.Schema
			}{{op.InputType(), op.Input}, {op.OutputType(), op.Output}} {
				v := reflect.New(side.rt).Interface()
				if _, err := wire.Redacted(side.schema, v); err != nil {
					t.Errorf("%s: write %s: %v", op.Key(), side.schema.Name, err)
				}
				if err := wire.UnmarshalJSON(side.schema, []byte(`{"Nope":1}`), v); err != nil && aws.KindOf(err) != aws.KindInvalid {
					t.Errorf("%s: read %s: %v", op.Key(), side.schema.Name, err)
				}
			}
		}
	}
}

// mountAll mounts one operation on a room that answers nothing.
func mountAll[I, O any](m *wire.Mux, op *wire.Operation[I, O]) {
	wire.Handle(m, op, "*", func(context.Context, *I) (*O, error) { return nil, nil })
}

// An exception that a room returns says what its model says.
func TestExceptionsFitTheirSchemas(t *testing.T) {
	for _, x := range []wire.Exception{
		&pinpoint.ConflictException{}, &smsvoicev2.ValidationException{}, &smsvoice.LimitExceededException{},
		&pinpointemail.MessageRejected{}, &iam.NoSuchEntityException{}, &sts.PackedPolicyTooLargeException{},
		&cloudtrail.InvalidNextTokenException{}, &cloudwatch.ResourceNotFound{}, &cognitoidentity.NotAuthorizedException{},
		&everpoint.NotImplementedException{},
	} {
		s := x.Exception()
		if s.Status < 400 || s.Code == "" {
			t.Errorf("%T: status %d, code %q", x, s.Status, s.Code)
		}
		if got := reflect.TypeOf(x).Elem().Name(); got != s.Name {
			t.Errorf("%T carries the schema of %s", x, s.Name)
		}
		if _, err := wire.MarshalJSON(s, x); err != nil {
			t.Errorf("%T: %v", x, err)
		}
	}
}
