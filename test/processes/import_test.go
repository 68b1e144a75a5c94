package processes

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

// An import that is killed goes on where its last commit was: every line counts
// once, every bad line is told once, and every endpoint is there.
func TestImportKilled(t *testing.T) {
	t.Parallel() // it waits for leases to run out
	const lines, kills, badEvery = 60_000, 2, 997
	rnd := seeded(t)
	w := newWorld(t, setting{})
	a := newApp(t, w)
	var file bytes.Buffer
	var bad []int64
	file.WriteString("Id,ChannelType,Address,Metrics.number,User.UserId\n")
	for i := range lines {
		if i%badEvery == badEvery-1 {
			bad = append(bad, int64(i)+2)
			fmt.Fprintf(&file, "e%05d,EMAIL,e%05d@tea.example,not-a-number,u%05d\n", i, i, i/2)
			continue
		}
		fmt.Fprintf(&file, "e%05d,EMAIL,e%05d@tea.example,%d,u%05d\n", i, i, i, i/2)
	}
	w.write("buckets/test/lines.csv", file.Bytes())
	made := a.startImport("s3://test/lines.csv", true)
	job := made
	for i, moment := range moments(rnd, kills, lines) {
		until(t, fmt.Sprintf("the import does not come to line %d for kill %d", moment, i+1), func() bool {
			if j := a.importJob(*made.Id); j != nil {
				job = j
			}
			return int(aws.ToInt32(job.TotalProcessed)) >= moment
		})
		t.Logf("kill %d at line %d, %s", i+1, aws.ToInt32(job.TotalProcessed), job.JobStatus)
		w.nodes[0].kill()
		w.start(0)
	}
	over := []types.JobStatus{types.JobStatusCompleted, types.JobStatusFailed}
	until(t, "the import does not end", func() bool {
		job = a.importJob(*made.Id)
		return job != nil && slices.Contains(over, job.JobStatus)
	})
	if n := aws.ToInt32(job.TotalProcessed); n != lines {
		t.Errorf("%d lines were processed, want %d", n, lines)
	}
	if n := aws.ToInt32(job.TotalFailures); int(n) != len(bad) {
		t.Errorf("%d lines failed, want %d", n, len(bad))
	}
	if got := a.failedLines(*made.Id); !slices.Equal(got, bad) {
		t.Errorf("the lines told are %v, want %v", got, bad)
	}

	// Every good line is an endpoint with its own number: their count and the
	// count of each half say that none is missing, and a few are read.
	for _, tt := range []struct {
		least, want int
	}{{0, lines - len(bad)}, {lines / 2, lines/2 - countAfter(bad, lines/2+2)}} {
		var count struct{ Count int }
		in := map[string]any{"Dimensions": map[string]any{"Metrics": map[string]any{
			"number": map[string]any{"ComparisonOperator": "GREATER_THAN_OR_EQUAL", "Value": tt.least},
		}}}
		until(t, "the audience index does not catch up", func() bool {
			err := a.admin(0, http.MethodPost, "/apps/"+a.id+"/segment-counts", nil, in, &count)
			return err == nil && count.Count >= tt.want
		})
		if count.Count != tt.want {
			t.Errorf("%d endpoints have a number from %d on, want %d", count.Count, tt.least, tt.want)
		}
	}
	for range 50 {
		i := rnd.IntN(lines)
		id := fmt.Sprintf("e%05d", i)
		out, err := a.c.GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &a.id, EndpointId: &id})
		if slices.Contains(bad, int64(i)+2) {
			if err == nil {
				t.Errorf("%s is there, although its line is bad", id)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		e := out.EndpointResponse
		if e.Metrics["number"] != float64(i) || *e.Address != id+"@tea.example" || *e.User.UserId != fmt.Sprintf("u%05d", i/2) {
			t.Errorf("%s is %v %v %v", id, e.Metrics, *e.Address, *e.User.UserId)
		}
	}
}

func countAfter(lines []int64, least int64) (n int) {
	for _, l := range lines {
		if l >= least {
			n++
		}
	}
	return n
}

// failedLines are the lines that an import could not take, as it tells them.
func (a *app) failedLines(job string) (lines []int64) {
	a.t.Helper()
	query := url.Values{"page-size": {"100"}}
	for {
		var page struct {
			Item      []struct{ Line int64 }
			NextToken string
		}
		if err := a.admin(0, http.MethodGet, "/apps/"+a.id+"/jobs/import/"+job+"/failures", query, nil, &page); err != nil {
			a.t.Fatal(err)
		}
		for _, f := range page.Item {
			lines = append(lines, f.Line)
		}
		if page.NextToken == "" {
			slices.Sort(lines)
			return lines
		}
		query.Set("token", page.NextToken)
	}
}
