package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws/wire"
)

// endpointBody is an endpoint update as SDKs send it, about 600 bytes.
const endpointBody = `{"Address":"customer0042@example.com","Attributes":{"Interests":["tea","mountains","chess"],"Plan":["gold"],"Store":["Berlin"]},` +
	`"ChannelType":"EMAIL","Demographic":{"AppVersion":"2.4.1","Locale":"de_DE","Make":"Example","Model":"Phone 9","Platform":"ios","PlatformVersion":"17.2","Timezone":"Europe/Berlin"},` +
	`"EffectiveDate":"2026-11-14T22:13:20.000Z","Location":{"City":"Berlin","Country":"DE","PostalCode":"10115"},"Metrics":{"Logins":42,"Spent":129.95},` +
	`"OptOut":"NONE","User":{"UserAttributes":{"FirstName":["Ada"],"LastName":["Lovelace"]},"UserId":"user-0042"}}`

func endpointMux(tb testing.TB) (*wire.Mux, *wire.Request) {
	m := wire.NewMux(pinpoint.Service)
	wire.Handle(m, pinpoint.UpdateEndpoint, "apps/{ApplicationId}/endpoints/{EndpointId}",
		func(context.Context, *pinpoint.UpdateEndpointRequest) (*pinpoint.UpdateEndpointResponse, error) {
			return &pinpoint.UpdateEndpointResponse{MessageBody: &pinpoint.MessageBody{}}, nil
		})
	return m, &wire.Request{
		Method: http.MethodPut, RawPath: "/v1/apps/810c7aab86d42fb2b56c8c966example/endpoints/e-0042",
		Header: http.Header{}, Body: []byte(endpointBody),
	}
}

func BenchmarkUpdateEndpoint(b *testing.B) {
	m, r := endpointMux(b)
	b.SetBytes(int64(len(endpointBody)))
	b.ReportAllocs()
	for b.Loop() {
		match, err := m.Find(r)
		if err != nil {
			b.Fatal(err)
		}
		if resp := match.Invoke(context.Background(), r); resp.Status != 202 {
			b.Fatal(resp.Status, string(resp.Body))
		}
	}
}

func BenchmarkEndpointUnmarshal(b *testing.B) {
	b.SetBytes(int64(len(endpointBody)))
	b.ReportAllocs()
	for b.Loop() {
		var e pinpoint.EndpointRequest
		if err := wire.UnmarshalJSON(pinpoint.EndpointRequestSchema, []byte(endpointBody), &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEndpointUnmarshalEncodingJSON(b *testing.B) {
	b.SetBytes(int64(len(endpointBody)))
	b.ReportAllocs()
	for b.Loop() {
		var e pinpoint.EndpointRequest
		if err := json.Unmarshal([]byte(endpointBody), &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEndpointMarshal(b *testing.B) {
	var e pinpoint.EndpointRequest
	if err := json.Unmarshal([]byte(endpointBody), &e); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.MarshalJSON(pinpoint.EndpointRequestSchema, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEndpointMarshalEncodingJSON(b *testing.B) {
	var e pinpoint.EndpointRequest
	if err := json.Unmarshal([]byte(endpointBody), &e); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(&e); err != nil {
			b.Fatal(err)
		}
	}
}
