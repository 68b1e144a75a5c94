package api_test

import (
	"regexp"
	"testing"

	"github.com/everpoint/everpoint/aws/wire"
)

// reads are the verbs of operations that change nothing.
var reads = regexp.MustCompile(`^(Get|List|Describe|Lookup|Count|Simulate|Search|Decode)[A-Z]`)

// controlCounts are how many operations of AWS's services a control Region
// serves. Whoever changes one has changed where calls are served: the overlays'
// README says which belongs where.
var controlCounts = map[string]int{
	"pinpoint": 58, "smsvoicev2": 59, "smsvoice": 5, "pinpointemail": 23, "iam": 98, "sts": 0,
	"cloudtrail": 29, "cloudwatch": 21, "cognitoidentity": 7, "personalizeruntime": 0,
}

// Every operation is on a plane, no read is on the control plane, and what
// anybody may call unsigned is not either: it must work when no quorum does.
func TestEveryOperationIsOnAPlane(t *testing.T) {
	for _, s := range services {
		control := 0
		for _, op := range s.Operations {
			switch op.Plane {
			case wire.ControlPlane:
				control++
				if reads.MatchString(op.Name) {
					t.Errorf("%s reads, and is on the control plane", op.Key())
				}
				if op.Method == "GET" || op.Unsigned {
					t.Errorf("%s is on the control plane: method %q, unsigned %t", op.Key(), op.Method, op.Unsigned)
				}
			case wire.DataPlane:
			default:
				t.Errorf("%s is on no plane: name it under \"planes\" in the overlay of its model (models/overlay/README.md)", op.Key())
			}
		}
		if want, known := controlCounts[s.Package]; known && control != want {
			t.Errorf("%s has %d operations on the control plane, want %d", s.Package, control, want)
		}
	}
}

// What must go on without a quorum.
func TestDataPlaneNamesWhatGoesOnWithoutQuorum(t *testing.T) {
	data := map[string]bool{}
	for _, s := range services {
		for _, op := range s.Operations {
			data[op.Key()] = op.Plane == wire.DataPlane
		}
	}
	for _, key := range []string{
		"pinpoint.UpdateEndpoint", "pinpoint.UpdateEndpointsBatch", "pinpoint.DeleteEndpoint", "pinpoint.DeleteUserEndpoints",
		"pinpoint.RemoveAttributes", "pinpoint.PutEvents", "pinpoint.SendMessages", "pinpoint.SendUsersMessages",
		"pinpoint.SendOTPMessage", "pinpoint.VerifyOTPMessage", "pinpoint.PhoneNumberValidate", "pinpoint.GetInAppMessages",
		"smsvoicev2.SendTextMessage", "smsvoicev2.SendMediaMessage", "smsvoicev2.SendVoiceMessage", "smsvoicev2.PutMessageFeedback",
		"smsvoicev2.PutOptedOutNumber", "smsvoicev2.DeleteOptedOutNumber", "smsvoice.SendVoiceMessage", "pinpointemail.SendEmail",
		"everpoint.CountSegment", "everpoint.RetryBuriedWork", "everpoint.UpdateControlRegion", "everpoint.UpdateRegionSwitch",
		"everpoint.ForgetRegion",
		"sts.AssumeRole", "sts.GetSessionToken", "cognitoidentity.GetId", "cognitoidentity.GetCredentialsForIdentity",
	} {
		if !data[key] {
			t.Errorf("%s is not on the data plane", key)
		}
	}
}

// A router repeats these in another Region, so their rooms must keep call records.
func TestRememberedOperations(t *testing.T) {
	want := map[string]bool{"pinpoint.SendMessages": true, "pinpoint.SendUsersMessages": true}
	for _, s := range services {
		for _, op := range s.Operations {
			if op.Remembered != want[op.Key()] {
				t.Errorf("%s: remembered is %t", op.Key(), op.Remembered)
			}
			if op.Remembered && op.Plane != wire.DataPlane {
				t.Errorf("%s is remembered, and not on the data plane", op.Key())
			}
		}
	}
}
