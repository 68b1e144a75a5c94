package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
)

// client calls a node's API with signed requests, for the operator's commands.
type client struct {
	endpoint string
	region   string
	creds    sigv4.Credentials
	http     *http.Client
}

// target is where a command connects; its flags default to the variables that
// AWS tools use.
type target struct{ endpoint, region, ca string }

func (t *target) flags(fs *flag.FlagSet) {
	fs.StringVar(&t.endpoint, "endpoint-url", os.Getenv("AWS_ENDPOINT_URL"), "the node's URL (AWS_ENDPOINT_URL)")
	fs.StringVar(&t.region, "region", os.Getenv("AWS_REGION"), "the Region to sign for (AWS_REGION)")
	fs.StringVar(&t.ca, "ca-bundle", os.Getenv("AWS_CA_BUNDLE"), "PEM roots to trust (AWS_CA_BUNDLE)")
}

// client connects with the credentials of the environment.
func (t *target) client() (*client, error) {
	return t.as(sigv4.Credentials{
		AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: sigv4.SecretKey(os.Getenv("AWS_SECRET_ACCESS_KEY")),
	})
}

func (t *target) as(creds sigv4.Credentials) (*client, error) {
	c := &client{endpoint: strings.TrimSuffix(t.endpoint, "/"), region: t.region, creds: creds}
	switch {
	case c.endpoint == "":
		return nil, errors.New("no endpoint: give -endpoint-url or set AWS_ENDPOINT_URL")
	case c.region == "":
		return nil, errors.New("no Region: give -region or set AWS_REGION")
	case c.creds.AccessKeyID == "" || c.creds.Secret == "":
		return nil, errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	config, err := t.tls()
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: config}}
	return c, nil
}

// tls trusts the CA bundle, or the system's roots when there is none.
func (t *target) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, fmt.Errorf("read CA bundle: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA bundle %s holds no certificate", t.ca)
	}
	return config, nil
}

// answerBytesMax bounds one answer.
const answerBytesMax = 16 << 20

// call sends in (nil: no body) and reads the answer into out (nil: dropped).
func (c *client) call(ctx context.Context, service, method, path string, query url.Values, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	target := c.endpoint + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := sigv4.Sign(req, sha256.Sum256(body), c.creds, c.region, service, time.Now()); err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var fault struct{ Message, RequestID string }
		_ = json.Unmarshal(answer, &fault) // without a body the status says it
		return fmt.Errorf("%s %s: %s: %s (request %s)", method, path, resp.Header.Get("x-amzn-ErrorType"), fault.Message, resp.Header.Get("x-amzn-RequestId"))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
