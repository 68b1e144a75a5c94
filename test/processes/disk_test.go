package processes

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// On a full disk a node refuses writes with a 503 that an SDK understands, goes
// on reading and being healthy, and recovers by itself when there is room again.
// Every write that it acknowledged is there then.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root may mount the small file system that this needs")
		return
	}
	const size, room, batches, recipients = 48 << 20, 3 << 20, 2000, 100
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		// Lazily: a node that a failing test left may have it open still.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	w := newWorld(t, setting{nodeDir: dir})
	a := newApp(t, w)
	reach := a.audience(recipients)
	once := pinpoint.NewFromConfig(aws.Config{
		Region: region, Credentials: signing, BaseEndpoint: aws.String("http://" + w.listens[0]), HTTPClient: w.http,
		Retryer: func() aws.Retryer { return retry.AddWithMaxAttempts(aws.NopRetryer{}, 1) },
	})
	ballast := filepath.Join(dir, "ballast")
	fill(t, dir, ballast, room)

	acknowledged := 0
	write := func() error {
		items := make([]types.EndpointBatchItem, 100)
		for i := range items {
			items[i] = types.EndpointBatchItem{
				Id: aws.String(fmt.Sprintf("full-%d-%d", acknowledged, i)), ChannelType: types.ChannelTypeEmail,
				Address:    aws.String(fmt.Sprintf("full.%d.%d@tea.example", acknowledged, i)),
				Attributes: map[string][]string{"tea": {"sencha"}},
			}
		}
		_, err := once.UpdateEndpointsBatch(t.Context(), &pinpoint.UpdateEndpointsBatchInput{
			ApplicationId: &a.id, EndpointBatchRequest: &types.EndpointBatchRequest{Item: items},
		})
		if err == nil {
			acknowledged++
		}
		return err
	}
	var err error
	for range batches {
		if err = write(); err != nil {
			break
		}
	}
	var fault smithy.APIError
	var answer *smithyhttp.ResponseError
	switch {
	case err == nil:
		t.Fatalf("%d batches were taken by a disk with room for %d bytes", batches, room)
	case !errors.As(err, &fault) || !errors.As(err, &answer):
		t.Fatalf("the refusal is no answer that an SDK understands: %v", err)
	case answer.HTTPStatusCode() != http.StatusServiceUnavailable || fault.ErrorCode() != "ServiceUnavailableException" || fault.ErrorMessage() == "":
		t.Errorf("the refusal is %d %s: %q", answer.HTTPStatusCode(), fault.ErrorCode(), fault.ErrorMessage())
	}
	t.Logf("after %d batches: %v", acknowledged, err)
	for range 20 {
		_ = write() // what it still acknowledges counts like the rest
	}

	id := "e00001"
	if _, err := once.GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &a.id, EndpointId: &id}); err != nil {
		t.Errorf("reading while the disk is full: %v", err)
	}
	if got := w.status("http://" + w.listens[0] + "/healthz"); got != http.StatusOK {
		t.Errorf("/healthz answers %d while the disk is full", got)
	}
	if w.nodes[0].ended() {
		t.Fatalf("the node ended: %v", w.nodes[0].err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := acknowledged
	until(t, "writes are not taken again", func() bool { return write() == nil })
	for n := range before {
		for _, i := range []int{0, 99} {
			id := fmt.Sprintf("full-%d-%d", n, i)
			if _, err := a.c.GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &a.id, EndpointId: &id}); err != nil {
				t.Fatalf("%s was acknowledged before the disk was full: %v", id, err)
			}
		}
	}
	// What needs the queue, the ledger and the log works again too.
	campaign := a.campaign("RESEND")
	a.finish(campaign)
	a.judge(campaign, recipients, reach)
}

// fill writes a file that leaves only so much room in the file system of dir.
func fill(t *testing.T, dir, file string, room int64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free <= room {
		t.Fatalf("only %d bytes are free from the start", free)
	}
	if err := os.WriteFile(file, make([]byte, free-room), 0o600); err != nil {
		t.Fatal(err)
	}
}
