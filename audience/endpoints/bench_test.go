package endpoints

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// benchRequest is an endpoint of about 600 bytes.
func benchRequest(i int) *pinpoint.EndpointRequest {
	address, user, make, model, zone, city, country := fmt.Sprintf("person%d@example.com", i), fmt.Sprintf("user-%d", i),
		"Acme", "Model One", "Europe/Oslo", "Oslo", "NO"
	lat, lon := 59.91, 10.75
	return &pinpoint.EndpointRequest{
		Address: &address, ChannelType: pinpoint.ChannelTypeEmail,
		Attributes:  map[string][]string{"interest": {"tea", "coffee"}, "plan": {"gold"}, "signup": {"2026-01-02"}},
		Metrics:     map[string]float64{"orders": float64(i % 17), "spend": float64(i % 1000)},
		Demographic: &pinpoint.EndpointDemographic{Make: &make, Model: &model, Timezone: &zone},
		Location:    &pinpoint.EndpointLocation{City: &city, Country: &country, Latitude: &lat, Longitude: &lon},
		OptOut:      pinpoint.OptOutNone,
		User:        &pinpoint.EndpointUser{UserId: &user, UserAttributes: map[string][]string{"age": {"42"}}},
	}
}

// benchEngines runs a benchmark on the engines that are at hand.
func benchEngines(b *testing.B, run func(b *testing.B)) {
	b.Run("sqlite", run)
	if postgresServer = os.Getenv("TEST_POSTGRES_URL"); postgresServer != "" {
		defer func() { postgresServer = "" }()
		b.Run("postgres", run)
	}
}

func benchRoom(b *testing.B) *Service {
	st := openStore(b, store.Config{Dir: b.TempDir()}, newKeys(b), time.Now)
	addApp(b, st, account, app)
	return New(Config{}, st, wire.NewTokens([]byte("sixteen bytes or more"), time.Now), aws.NewIDs(rand.NewChaCha8([32]byte{})), time.Now, discard)
}

// BenchmarkRoom is the room's own part of an UpdateEndpoint of an endpoint that
// exists: check and encode the request, read the record, merge, write the
// record. The store's part is not in it.
func BenchmarkRoom(b *testing.B) {
	s := benchRoom(b)
	req := benchRequest(1)
	p, err := s.Prepare(app, "endpoint", req, "req-0")
	if err != nil {
		b.Fatal(err)
	}
	r, err := apply(&changelog.Record{}, p, p.sets, changelog.Stamp{Clock: 1, Region: "us-east-1"})
	if err != nil {
		b.Fatal(err)
	}
	body := encode(&r)
	b.ReportAllocs()
	for n := uint64(2); b.Loop(); n++ {
		p, err := s.Prepare(app, "endpoint", req, "req-1")
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Touches()
		was, err := changelog.DecodeRecord(body)
		if err != nil {
			b.Fatal(err)
		}
		is, err := apply(&was, p, p.sets, changelog.Stamp{Clock: n, Region: "us-east-1"})
		if err != nil {
			b.Fatal(err)
		}
		_ = encode(&is)
	}
}

// BenchmarkUpdateEndpoint64 is 64 callers that update random ones of a
// thousand endpoints, each durable before it is answered.
func BenchmarkUpdateEndpoint64(b *testing.B) { benchEngines(b, benchUpdates) }

func benchUpdates(b *testing.B) {
	s := benchRoom(b)
	ctx := aws.WithCaller(context.Background(), aws.Caller{Account: account, RequestID: "d2c1a7c0-52a6-4d6c-a3ad-9f4f4f0c2c55"})
	var n atomic.Int64
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 64 {
		done.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				id := int(i*2654435761) % 1000
				_, err := s.update(ctx, &pinpoint.UpdateEndpointRequest{ApplicationId: app, EndpointId: fmt.Sprint("e", id), EndpointRequest: benchRequest(id)})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// BenchmarkImport imports rows of about 250 bytes, new endpoints with a user
// and eight attributes and metrics, into SQLite. One iteration is one row.
func BenchmarkImport(b *testing.B) {
	for _, touches := range []int{4000, 16000} {
		b.Run(fmt.Sprint("touches_", touches), func(b *testing.B) {
			benchEngines(b, func(b *testing.B) { benchImport(b, touches) })
		})
	}
}

func benchImport(b *testing.B, touches int) {
	s := benchRoom(b)
	dir := b.TempDir()
	var text strings.Builder
	text.WriteString("Id,Address,ChannelType,Attributes.interest,Attributes.interest,Attributes.plan,Attributes.signup,Metrics.orders,Metrics.spend," +
		"Demographic.Make,Demographic.Model,Demographic.Timezone,Location.City,Location.Country,Location.Latitude,Location.Longitude,User.UserId,User.UserAttributes.age\n")
	for i := range b.N {
		fmt.Fprintf(&text, "endpoint-%d,person%d@example.com,EMAIL,tea,coffee,gold,2026-01-02,%d,%d,Acme,Model One,Europe/Oslo,Oslo,NO,59.91,10.75,user-%d,42\n", i, i, i%17, i%1000, i)
	}
	writeFile(b, filepath.Join(dir, "bucket", "in.csv"), []byte(text.String()))
	im := NewImports(ImportConfig{BucketDir: dir, ChunkRows: touches, ChunkTouches: touches}, s, nil, discard)
	ctx := aws.WithCaller(context.Background(), aws.Caller{Account: account})
	yes := true
	out, err := im.create(ctx, &pinpoint.CreateImportJobRequest{ApplicationId: app, ImportJobRequest: &pinpoint.ImportJobRequest{
		Format: "CSV", RoleArn: role, S3Url: "s3://bucket/in.csv", RegisterEndpoints: &yes,
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	runOnce(b, ctx, im)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	j, err := im.find(ctx, app, out.ImportJobResponse.Id)
	if err != nil || j.Status != pinpoint.JobStatusCompleted || j.Processed != b.N || j.Failed != 0 {
		b.Fatalf("%+v, %v", j, err)
	}
}
