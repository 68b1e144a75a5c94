package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
)

const adminService = "everpoint"

// errUnbalanced says that a reconciliation does not add up.
var errUnbalanced = errors.New("the reconciliation does not add up")

func campaign(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("campaign", `campaign run|reconcile [flags] APP-ID CAMPAIGN-ID

run shows how far a campaign is; reconcile adds up what became of every
recipient, and fails when it does not add up.`, stderr)
	var to target
	to.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	watch := fs.Bool("watch", false, "run: show progress until the campaign is over")
	if len(args) == 0 {
		fs.Usage()
		return errUsage
	}
	verb := args[0]
	if done, err := parse(fs, args[1:]); done {
		return err
	}
	if fs.NArg() != 2 || verb != "run" && verb != "reconcile" {
		fs.Usage()
		return errUsage
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	path := "/everpoint/v1/apps/" + url.PathEscape(fs.Arg(0)) + "/campaigns/" + url.PathEscape(fs.Arg(1))
	if verb == "reconcile" {
		return reconcile(ctx, c, path, *asJSON, stdout)
	}
	for {
		var r everpoint.CampaignRun
		if err := c.call(ctx, adminService, "GET", path+"/run", nil, nil, &r); err != nil {
			return err
		}
		if *asJSON {
			if err := printJSON(stdout, r); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(stdout, "%s: %d targets, %d sent, %d failed, %d held, %d ambiguous, %d in flight\n",
				r.State, r.Targets, r.Sent, r.Failed, sum(r.Held), r.Ambiguous, r.InFlight)
		}
		if !*watch || r.State == everpoint.RunStateCompleted || r.State == everpoint.RunStateFailed {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

func reconcile(ctx context.Context, c *client, path string, asJSON bool, stdout io.Writer) error {
	var r everpoint.Reconciliation
	if err := c.call(ctx, adminService, "GET", path+"/reconciliation", nil, nil, &r); err != nil {
		return err
	}
	if asJSON {
		return printJSON(stdout, r)
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	if err := table(stdout, [][]string{
		{"targets", n(r.Targets), ""},
		{"sent", n(r.Sent), ""},
		{"failed", n(r.Failed), ""},
		{"held", n(sum(r.Held)), counts(r.Held)},
		{"ambiguous, left", n(r.AmbiguousLeft), ""},
		{"ambiguous, sent again", n(r.AmbiguousResent), "counted above by what became of them"},
		{"in flight", n(r.InFlight), ""},
		{"unaccounted", n(r.Unaccounted), ""},
	}); err != nil {
		return err
	}
	if !r.Balanced {
		return errUnbalanced
	}
	return nil
}

func ambiguous(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("ambiguous", `ambiguous [flags] APP-ID

Lists sends whose outcome is not known, or was not for a while. Addresses are
shown only with -addresses.`, stderr)
	var to target
	to.flags(fs)
	campaignID := fs.String("campaign", "", "only this campaign's")
	asJSON := fs.Bool("json", false, "print JSON")
	addresses := fs.Bool("addresses", false, "show addresses")
	if done, err := parse(fs, args); done {
		return err
	}
	if fs.NArg() != 1 {
		fs.Usage()
		return errUsage
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	rows := [][]string{{"INTENT", "MESSAGE", "CHANNEL", "ENDPOINT", "DECISION", "RESOLUTION"}}
	var all []everpoint.AmbiguousSend
	query := url.Values{"page-size": {"500"}}
	if *campaignID != "" {
		query.Set("campaign-id", *campaignID)
	}
	for {
		var page everpoint.AmbiguousSendsResponse
		if err := c.call(ctx, adminService, "GET", "/everpoint/v1/apps/"+url.PathEscape(fs.Arg(0))+"/ambiguous-sends", query, nil, &page); err != nil {
			return err
		}
		all = append(all, page.Item...)
		if page.NextToken == nil || *page.NextToken == "" {
			break
		}
		query.Set("token", *page.NextToken)
	}
	if *asJSON {
		return printJSON(stdout, all)
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	for _, a := range all {
		endpoint := text(a.EndpointId)
		if *addresses {
			endpoint += " " + a.Address
		}
		rows = append(rows, []string{fmt.Sprint(a.IntentAt), a.MessageId, a.Channel, endpoint, string(a.Decision), text(a.Resolution)})
	}
	return table(stdout, rows)
}

func segment(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("segment", `segment count [flags] APP-ID FILE

Counts the endpoints that an unsaved segment would have, exactly. FILE holds the
JSON of a WriteSegmentRequest ("-" for standard input).`, stderr)
	var to target
	to.flags(fs)
	if len(args) == 0 || args[0] != "count" {
		fs.Usage()
		return errUsage
	}
	if done, err := parse(fs, args[1:]); done {
		return err
	}
	if fs.NArg() != 2 {
		fs.Usage()
		return errUsage
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	in := os.Stdin
	if fs.Arg(1) != "-" {
		if in, err = os.Open(fs.Arg(1)); err != nil {
			return err
		}
		defer in.Close()
	}
	data, err := io.ReadAll(io.LimitReader(in, answerBytesMax))
	if err != nil {
		return err
	}
	var out everpoint.SegmentCount
	if err := c.call(ctx, adminService, "POST", "/everpoint/v1/apps/"+url.PathEscape(fs.Arg(0))+"/segment-counts", nil, rawJSON(data), &out); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d endpoints, %d of them can be reached (%.2f ms)\n", out.Count, out.Eligible, float64(out.ElapsedMicroseconds)/1000)
	return nil
}

// rawJSON is JSON that a person wrote; it goes out as it is.
type rawJSON []byte

// MarshalJSON returns the text.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }
