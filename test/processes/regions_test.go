package processes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/state/replica"
)

const otherRegion = "eu-west-1"

// certificates writes the authority of a group and a certificate for each Region.
func (w *world) certificates(regions ...string) {
	w.t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := w.certificate("ca", ca, ca, nil)
	for i, name := range regions {
		w.certificate(name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			URIs: []*url.URL{replica.CertificateURI(name)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, ca, caKey)
	}
}

// certificate writes name.pem and name.key; a nil signer signs itself.
func (w *world) certificate(name string, c, parent *x509.Certificate, signer *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	w.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return key
}

// newRegions is a world of two Regions, a node each.
func newRegions(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}}
	t.Cleanup(w.close)
	w.write("secret", []byte(secretKey))
	regions := []string{region, otherRegion}
	w.certificates(regions...)
	peers := []string{freeAddress(t), freeAddress(t)}
	for i, name := range regions {
		c := node.Config{
			Node: "n1", Region: name, Dir: name, Local: true,
			Door:    node.Door{Listen: freeAddress(t), PlainLoopback: true, RegionsAccepted: []string{regions[1-i]}},
			Account: []node.Account{{ID: account, AccessKeyID: accessKeyID, SecretFile: "secret"}},
			Group: &node.Group{
				Listen: peers[i], CAFile: "ca.pem", CertFile: name + ".pem", KeyFile: name + ".key",
				Peers: []node.Peer{{Region: regions[1-i], URL: "https://" + peers[1-i]}},
			},
		}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		w.write(name+".json", data)
		w.listens = append(w.listens, c.Door.Listen)
		w.nodes = append(w.nodes, &process{name: name, args: []string{"serve", "-config", w.path(name + ".json")}, log: w.path(name + ".log")})
	}
	w.start(0)
	// The Regions of a group share the hashing keyset, each has its own for sealing.
	hashing, err := os.ReadFile(w.path(region + "/keys/hashing.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(otherRegion+"/keys/hashing.json", hashing)
	w.start(1)
	return w
}

// A router stands before both Regions: an SDK in a loop sees no failed call when
// one of them is killed, and both hold what was written when it is back.
func TestRouterDiverts(t *testing.T) {
	w := newRegions(t)
	listen := freeAddress(t)
	data, err := json.Marshal(map[string]any{
		"Listen": listen, "PlainLoopback": true,
		"Regions": []map[string]any{{"Name": region, "URL": "http://" + w.listens[0]}, {"Name": otherRegion, "URL": "http://" + w.listens[1]}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.write("router.json", data)
	w.listens = append(w.listens, listen)
	w.nodes = append(w.nodes, &process{name: "router", args: []string{"router", "-config", w.path("router.json")}, log: w.path("router.log")})
	w.start(2)
	c := w.client(2)
	out, err := w.client(0).CreateApp(t.Context(), &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
	if err != nil {
		t.Fatal(err)
	}
	app := *out.ApplicationResponse.Id
	until(t, "the app is not in the other Region", func() bool {
		_, err := w.client(1).GetApp(t.Context(), &pinpoint.GetAppInput{ApplicationId: &app})
		return err == nil
	})
	const n = 600
	var longest time.Duration
	for i := range n {
		if i == n/3 {
			w.nodes[0].kill()
		}
		begun := time.Now()
		id := fmt.Sprint("e", i)
		if _, err := c.UpdateEndpoint(t.Context(), &pinpoint.UpdateEndpointInput{
			ApplicationId: &app, EndpointId: &id,
			EndpointRequest: &types.EndpointRequest{Address: aws.String(id + "@tea.example"), ChannelType: types.ChannelTypeEmail},
		}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		// Whoever reads what they just wrote meets the same Region.
		if i < n/3 {
			if _, err := c.GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &app, EndpointId: &id}); err != nil {
				t.Fatalf("endpoint %d is not where it was written: %v", i, err)
			}
		}
		longest = max(longest, time.Since(begun))
	}
	t.Logf("the longest call took %s", longest.Round(time.Millisecond))
	if longest > 5*time.Second {
		t.Errorf("a call took %s", longest)
	}
	w.start(0)
	for i := range 2 {
		until(t, w.nodes[i].name+" lacks endpoints", func() bool {
			for k := range n {
				if _, err := w.client(i).GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &app, EndpointId: aws.String(fmt.Sprint("e", k))}); err != nil {
					return false
				}
			}
			return true
		})
	}
}

// Two Regions hold the same: what the AWS SDK writes in one it reads in the other,
// also after one was killed and came back.
func TestTwoRegions(t *testing.T) {
	w := newRegions(t)
	ctx := t.Context()
	clients := [2]*pinpoint.Client{w.client(0), w.client(1)}
	out, err := clients[0].CreateApp(ctx, &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
	if err != nil {
		t.Fatal(err)
	}
	app := *out.ApplicationResponse.Id
	there := func(i int) bool {
		_, err := clients[i].GetApp(ctx, &pinpoint.GetAppInput{ApplicationId: &app})
		return err == nil
	}
	until(t, "the app is not in the other Region", func() bool { return there(1) })
	update := func(i int, id string, e types.EndpointRequest) {
		t.Helper()
		if _, err := clients[i].UpdateEndpoint(ctx, &pinpoint.UpdateEndpointInput{ApplicationId: &app, EndpointId: &id, EndpointRequest: &e}); err != nil {
			t.Fatal(err)
		}
	}
	get := func(i int, id string) *types.EndpointResponse {
		t.Helper()
		out, err := clients[i].GetEndpoint(ctx, &pinpoint.GetEndpointInput{ApplicationId: &app, EndpointId: &id})
		if err != nil {
			if _, ok := errors.AsType[*types.NotFoundException](err); ok {
				return nil
			}
			t.Fatal(err)
		}
		return out.EndpointResponse
	}
	for n := range 40 {
		id := fmt.Sprint("e", n)
		update(n%2, id, types.EndpointRequest{
			Address: aws.String(id + "@tea.example"), ChannelType: types.ChannelTypeEmail, Attributes: map[string][]string{"Plan": {"gold"}},
		})
	}
	until(t, "the endpoints are not in both Regions", func() bool {
		for n := range 40 {
			if e := get(1-n%2, fmt.Sprint("e", n)); e == nil || *e.Address != fmt.Sprintf("e%d@tea.example", n) {
				return false
			}
		}
		return true
	})
	// The command says how they hear of each other, and fails when they do not.
	status := func(i int) (string, error) {
		show := exec.Command(binary, "region", "status")
		show.Env = append(os.Environ(), "AWS_ENDPOINT_URL=http://"+w.listens[i], "AWS_REGION="+region,
			"AWS_ACCESS_KEY_ID="+accessKeyID, "AWS_SECRET_ACCESS_KEY="+secretKey)
		out, err := show.CombinedOutput()
		return string(out), err
	}
	if out, err := status(1); err != nil || !strings.Contains(out, region) {
		t.Errorf("everpoint region status: %v\n%s", err, out)
	}
	// One is killed; the other goes on: updates, an opt-out, a deletion.
	w.nodes[0].kill()
	until(t, "nobody is told that a Region is not heard", func() bool {
		out, err := status(1)
		return err != nil && strings.Contains(out, "a Region of the group is not heard")
	})
	update(1, "e0", types.EndpointRequest{Attributes: map[string][]string{"City": {"Oslo"}}})
	update(1, "e1", types.EndpointRequest{OptOut: aws.String("ALL")})
	if _, err := clients[1].DeleteEndpoint(ctx, &pinpoint.DeleteEndpointInput{ApplicationId: &app, EndpointId: aws.String("e2")}); err != nil {
		t.Fatal(err)
	}
	w.start(0)
	until(t, "the Region that was killed does not catch up", func() bool {
		e0, e1 := get(0, "e0"), get(0, "e1")
		return len(e0.Attributes["City"]) == 1 && e0.Attributes["Plan"][0] == "gold" && *e1.OptOut == "ALL" && get(0, "e2") == nil
	})
	// Its index has heard of it all: a segment counts the same in both.
	counts := func(i int) (n int64) {
		var out struct{ Count int64 }
		if err := w.admin(i, "POST", "/apps/"+app+"/segment-counts", nil, map[string]any{
			"Dimensions": map[string]any{"Attributes": map[string]any{"Plan": map[string]any{"AttributeType": "INCLUSIVE", "Values": []string{"gold"}}}},
		}, &out); err != nil {
			t.Fatal(err)
		}
		return out.Count
	}
	until(t, "the Regions count different audiences", func() bool { a, b := counts(0), counts(1); return a == b && a > 0 })
	// An app that is deleted in one is gone in both.
	if _, err := clients[0].DeleteApp(ctx, &pinpoint.DeleteAppInput{ApplicationId: &app}); err != nil {
		t.Fatal(err)
	}
	until(t, "the deleted app is still in the other Region", func() bool { return !there(1) })
}
