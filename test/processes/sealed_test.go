package processes

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
	"github.com/klauspost/compress/zstd"
)

// Whoever steals the database's files after a campaign learns no address,
// attribute, user id or secret from them; nor does the log tell.
func TestNothingReadable(t *testing.T) {
	const recipients = 400
	w := newWorld(t, setting{})
	a := newApp(t, w)
	reach := a.audience(recipients)
	if _, err := a.c.UpdateEndpoint(t.Context(), &pinpoint.UpdateEndpointInput{
		ApplicationId: &a.id, EndpointId: aws.String("secretive"),
		EndpointRequest: &types.EndpointRequest{
			ChannelType: types.ChannelTypeEmail, Address: aws.String("secretive.address@tea.example"),
			Attributes:  map[string][]string{"tea": {"oolong"}, "confession": {"secretive-attribute"}},
			Demographic: &types.EndpointDemographic{Model: aws.String("secretive-model")},
			Location:    &types.EndpointLocation{City: aws.String("secretive-city")},
			User:        &types.EndpointUser{UserId: aws.String("secretive-user"), UserAttributes: map[string][]string{"x": {"secretive-userattribute"}}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.c.UpdateGcmChannel(t.Context(), &pinpoint.UpdateGcmChannelInput{
		ApplicationId: &a.id, GCMChannelRequest: &types.GCMChannelRequest{ApiKey: aws.String("secretive-api-key"), Enabled: aws.Bool(true)},
	}); err != nil {
		t.Fatal(err)
	}
	campaign := a.campaign("RESEND")
	a.finish(campaign)
	if n := w.wentOut(); n != len(reach)+1 {
		t.Fatalf("%d messages went out, want %d: the sample was not played", n, len(reach)+1)
	}

	// What must not be found. The values are long, so that chance does not find them.
	needles := []string{
		"@tea.example", "member.0", "+1253555", "1253555", "secretive-attribute", "secretive-model", "secretive-city",
		"secretive-user", "secretive-userattribute", "secretive-api-key", secretKey, "oolong", "u00001",
		"come and taste",
	}
	search := func(where string, data []byte) {
		t.Helper()
		for _, needle := range needles {
			// The sender's own address and the segment's definition are settings, but
			// sealed all the same.
			if at := bytes.Index(data, []byte(needle)); at >= 0 {
				t.Errorf("%s holds %q at byte %d: %q", where, needle, at, data[max(0, at-40):min(len(data), at+60)])
			}
		}
	}
	look := func(when string) {
		files, found := 0, false
		err := filepath.WalkDir(w.path("node-1"), func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			files++
			// What needs no seal is there to be found, so this looks at the right bytes.
			found = found || bytes.Contains(data, []byte(a.id))
			search(when+" "+d.Name(), data)
			for _, plain := range unpacked(t, data) {
				search(when+" "+d.Name()+", unpacked", plain)
			}
			return nil
		})
		if err != nil || !found {
			t.Fatalf("%s %d files read, the app's id is in one of them: %v: %v", when, files, found, err)
		}
	}
	look("running:")
	w.nodes[0].kill()
	look("killed:")
	w.start(0)
	w.nodes[0].stop(t)
	look("stopped:")
	log, err := os.ReadFile(w.nodes[0].log)
	if err != nil {
		t.Fatal(err)
	}
	search("the log", log)
	if !strings.Contains(string(log), "campaign run") {
		t.Error("the log tells of no campaign: it is not the node's")
	}
}

// unpacked tries every place of a file where a compressed frame seems to begin:
// packing is no sealing.
func unpacked(t *testing.T, data []byte) (plain [][]byte) {
	t.Helper()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for at := 0; ; at++ {
		next := bytes.Index(data[at:], magic)
		if next < 0 {
			return plain
		}
		at += next
		// What follows a frame is an error; what came before it counts.
		if out, _ := d.DecodeAll(data[at:], nil); len(out) > 0 {
			plain = append(plain, out)
		}
	}
}
