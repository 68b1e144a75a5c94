package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
)

// service is everything the sample talks to. The SDK reads its settings from
// the AWS_* variables, as in any program.
type service struct {
	pinpoint *pinpoint.Client
	cfg      aws.Config
	regions  []place // one, or those of a group, by name
	account  string  // 12 digits
	buckets  string  // directory of the local buckets
	outbox   string  // URL
}

func connect(ctx context.Context) (*service, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	s := &service{
		pinpoint: pinpoint.NewFromConfig(cfg), cfg: cfg, account: os.Getenv("EVERPOINT_ACCOUNT_ID"),
		buckets: os.Getenv("EVERPOINT_BUCKETS"), outbox: strings.TrimSuffix(os.Getenv("EVERPOINT_OUTBOX_URL"), "/"),
	}
	for pair := range strings.SplitSeq(os.Getenv("EVERPOINT_REGIONS"), ",") {
		if name, at, ok := strings.Cut(pair, "="); ok {
			s.regions = append(s.regions, place{name, at})
		}
	}
	slices.SortFunc(s.regions, func(a, b place) int { return strings.Compare(a.region, b.region) })
	if cfg.BaseEndpoint == nil || len(s.regions) == 0 || s.account == "" || s.buckets == "" || s.outbox == "" {
		return nil, errors.New("read local.env of an `everpoint local` into the shell first: . DIR/local.env")
	}
	return s, nil
}

// place is where a Region is called itself, past the router.
type place struct{ region, url string }

// grouped says that there are several Regions.
func (s *service) grouped() bool { return len(s.regions) > 1 }

// anywhere is the endpoint of the settings: the router, or the only Region.
func (s *service) anywhere() place { return place{"", *s.cfg.BaseEndpoint} }

// answerBytesMax bounds one answer.
const answerBytesMax = 64 << 20

// admin calls Everpoint's own API, which no SDK knows: JSON over HTTPS, signed
// like any other call, with the service name "everpoint".
func (s *service) admin(ctx context.Context, at place, path string, query url.Values, out any) error {
	target := strings.TrimSuffix(at.url, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return err
	}
	credentials, err := s.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	empty := sha256.Sum256(nil)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(empty[:]), "everpoint", s.cfg.Region, time.Now()); err != nil {
		return err
	}
	return s.read(req, out)
}

func (s *service) read(req *http.Request, out any) error {
	resp, err := s.cfg.HTTPClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL.Path, resp.Status, body)
	}
	return json.Unmarshal(body, out)
}

// run is how far a campaign is.
type run struct {
	State   string // PENDING, RUNNING, COMPLETED, FAILED
	Targets int64
}

func campaignPath(app, campaign, what string) string {
	return "/everpoint/v1/apps/" + app + "/campaigns/" + campaign + "/" + what
}

func (s *service) run(ctx context.Context, app, campaign string) (*run, error) {
	r := &run{}
	return r, s.admin(ctx, s.anywhere(), campaignPath(app, campaign, "run"), nil, r)
}

func (s *service) reconciliation(ctx context.Context, at place, app, campaign string) (r Reconciliation, err error) {
	return r, s.admin(ctx, at, campaignPath(app, campaign, "reconciliation"), nil, &r)
}

// ambiguousSends lists what Everpoint does not know, or did not for a while.
func (s *service) ambiguousSends(ctx context.Context, at place, app, campaign string) ([]AmbiguousSend, error) {
	var all []AmbiguousSend
	query := url.Values{"campaign-id": {campaign}, "page-size": {"500"}}
	for {
		var page struct {
			Item      []AmbiguousSend
			NextToken string
		}
		if err := s.admin(ctx, at, "/everpoint/v1/apps/"+app+"/ambiguous-sends", query, &page); err != nil {
			return nil, err
		}
		if all = append(all, page.Item...); page.NextToken == "" {
			return all, nil
		}
		query.Set("token", page.NextToken)
	}
}

// group is what the Regions have decided together.
type group struct {
	Control struct{ Region string }
	Regions []struct {
		Region, Reason string
		InSync         bool
		Shards         int // of 64: what it sends for
	}
}

func (s *service) group(ctx context.Context, at place) (*group, error) {
	g := &group{}
	return g, s.admin(ctx, at, "/everpoint/v1/group", nil, g)
}

// node is what a Region has, and how it hears of the others.
type node struct {
	EndpointsIndexed int64
	Peers            []peer
}

type peer struct {
	Region, Problem                                      string
	LagMilliseconds                                      int64
	SafetyMerged, SafetyHead, ChangesMerged, ChangesHead int64
}

func (s *service) node(ctx context.Context, at place) (*node, error) {
	n := &node{}
	return n, s.admin(ctx, at, "/everpoint/v1/node", nil, n)
}

// outboxCount is how many messages the carriers took since they were started.
func (s *service) outboxCount(ctx context.Context) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.outbox+"/count", http.NoBody)
	if err != nil {
		return 0, err
	}
	return n, s.read(req, &n)
}

// messages reads the outbox from after the nth message on.
func (s *service) messages(ctx context.Context, after int) ([]Message, error) {
	var all []Message
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.outbox+"/?after="+strconv.Itoa(after), http.NoBody)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		var page []Message
		if err := s.read(req, &page); err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		if len(page) == 0 {
			return all, nil
		}
		if all = append(all, page...); all[len(all)-1].N <= after {
			return nil, errors.New("outbox: it does not page")
		}
		after = all[len(all)-1].N
	}
}

// bucketFile is where s3://bucket/key lies.
func (s *service) bucketFile(bucket, key string) string {
	return filepath.Join(s.buckets, bucket, filepath.FromSlash(key))
}
