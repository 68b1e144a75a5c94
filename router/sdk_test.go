package router

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/aws/sigv4"
)

// memory is what the Regions of a group know together: which calls were executed.
type memory struct {
	mu       sync.Mutex
	executed map[string]int    // by what the call did
	known    map[string]string // invocation id and hash of the body, to the answer
}

// sdkRegion answers the SDK, remembers calls with the other Regions, and breaks
// the connection after it has executed every n-th.
func sdkRegion(reg *siteRegion, m *memory, breaks int64) http.HandlerFunc {
	var calls atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		path, query, _ := target(r)
		if _, err := reg.verifier.Verify(r.Context(), testKeys{}, &sigv4.Request{
			Method: r.Method, RawPath: path, RawQuery: query, Host: r.Host, Header: r.Header, BodySHA256: sha256.Sum256(body), TLS: true,
			Now: time.Now(), Regions: func(region string) bool { return region == "eu-1-1" }, Services: []string{"mobiletargeting"},
		}); err != nil {
			reg.t.Errorf("%s %s: %v", r.Method, path, err)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		m.mu.Lock()
		key := fmt.Sprintf("%s %x", r.Header.Get("Amz-Sdk-Invocation-Id"), sha256.Sum256(body))
		answer, again := m.known[key]
		if !again {
			answer = `{"Message":"Accepted"}`
			if strings.HasSuffix(path, "/messages") {
				answer = `{"ApplicationId":"A","RequestId":"` + r.Header.Get("Amz-Sdk-Invocation-Id") + `"}`
			}
			m.known[key] = answer
			m.executed[r.Method+" "+path+" "+string(body)]++
		}
		m.mu.Unlock()
		if breaks > 0 && calls.Add(1)%breaks == 0 {
			panic(http.ErrAbortHandler) // executed, and the answer is lost
		}
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusAccepted)
		}
		_, _ = io.WriteString(w, answer)
	}
}

// TestSDK puts the unmodified AWS SDK, told to try once only, before Regions of
// which one loses answers and is then killed: its caller sees no failure, and
// every message is sent once.
func TestSDK(t *testing.T) {
	s := newSite(t, 2, Config{Health: Health{FailuresMin: 1000}}) // so that it is diverted by its death only
	s.run()
	m := &memory{executed: map[string]int{}, known: map[string]string{}}
	s.regions[0].do(sdkRegion(s.regions[0], m, 0))
	s.regions[1].do(sdkRegion(s.regions[1], m, 7))
	client := pinpoint.New(pinpoint.Options{
		Region: "eu-1-1", BaseEndpoint: sdk.String(s.front.URL), HTTPClient: s.h1, Retryer: sdk.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(testCredentials.AccessKeyID, string(testCredentials.Secret), ""),
	})
	const workers, rounds = 6, 60
	var all sync.WaitGroup
	var done atomic.Int64
	kill := sync.OnceFunc(s.regions[1].kill)
	for w := range workers {
		all.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("u/%d %d", w, i)
				_, err := client.UpdateEndpoint(t.Context(), &pinpoint.UpdateEndpointInput{
					ApplicationId: sdk.String("A"), EndpointId: &id, EndpointRequest: &types.EndpointRequest{Address: &id, ChannelType: types.ChannelTypeEmail},
				})
				if err != nil {
					t.Errorf("UpdateEndpoint: %v", err)
				}
				if _, err = client.GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: sdk.String("A"), EndpointId: &id}); err != nil {
					t.Errorf("GetEndpoint: %v", err)
				}
				out, err := client.SendMessages(t.Context(), &pinpoint.SendMessagesInput{
					ApplicationId: sdk.String("A"),
					MessageRequest: &types.MessageRequest{
						Addresses:            map[string]types.AddressConfiguration{id: {ChannelType: types.ChannelTypeSms}},
						MessageConfiguration: &types.DirectMessageConfiguration{SMSMessage: &types.SMSMessage{Body: &id}},
					},
				})
				if err != nil || out.MessageResponse == nil || sdk.ToString(out.MessageResponse.RequestId) == "" {
					t.Errorf("SendMessages: %+v %v", out, err)
				}
				if done.Add(1) == workers*rounds/2 {
					kill()
				}
			}
		})
	}
	all.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := 0
	for call, n := range m.executed {
		if strings.HasPrefix(call, "POST ") {
			sent++
			if n != 1 {
				t.Errorf("%s was executed %d times", call, n)
			}
		}
	}
	if sent != workers*rounds {
		t.Errorf("%d messages sent, want %d", sent, workers*rounds)
	}
	if st := s.rt.Status(); st.Retries < 20 || st.Regions[1].Rescued < 20 || st.Regions[1].State != Down {
		t.Errorf("too little went wrong to show anything: %+v", st)
	}
}
