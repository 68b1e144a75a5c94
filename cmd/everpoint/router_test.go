package main

import (
	"testing"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/router"
)

// A router tells the operations of the services apart as the nodes do.
func TestRouterFindsWhatIsRemembered(t *testing.T) {
	remembered := router.Remembers(node.Services()...)
	for _, tt := range []struct {
		call router.Call
		want bool
	}{
		{router.Call{Method: "POST", Path: "/v1/apps/0123/messages"}, true},
		{router.Call{Method: "POST", Path: "/v1/apps/0123/users-messages"}, true},
		{router.Call{Method: "POST", Path: "/v1/apps/0123/events"}, false},
		{router.Call{Method: "POST", Path: "/v1/apps/0123/otp"}, false},
		{router.Call{Method: "POST", Path: "/v1/apps"}, false},
		{router.Call{Method: "POST", Path: "/", Target: "PinpointSMSVoiceV2.DescribePools"}, true},
		{router.Call{Method: "POST", Path: "/", Target: "PinpointSMSVoiceV2.SendTextMessage"}, false},
		{router.Call{Method: "POST", Path: "/", Target: "AWSCognitoIdentityService.GetId"}, false},
		{router.Call{Method: "POST", Path: "/"}, false},
	} {
		if got := remembered(tt.call); got != tt.want {
			t.Errorf("%+v: %t, want %t", tt.call, got, tt.want)
		}
	}
}
