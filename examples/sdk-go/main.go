package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/smithy-go"
)

// limit is when the whole is given up.
const limit = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := perform(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED ", err)
		os.Exit(1)
	}
	fmt.Println("all is as it should be")
}

// shop is what the checks share.
type shop struct {
	*pinpoint.Client
	cfg     aws.Config
	account string // 12 digits
	buckets string // directory of the local buckets

	app, segment, campaign string
}

func perform(ctx context.Context) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	s := &shop{
		Client: pinpoint.NewFromConfig(cfg), cfg: cfg,
		account: os.Getenv("EVERPOINT_ACCOUNT_ID"), buckets: os.Getenv("EVERPOINT_BUCKETS"),
	}
	if cfg.BaseEndpoint == nil || s.account == "" || s.buckets == "" {
		return errors.New("read local.env of an `everpoint local` into the shell first: . DIR/local.env")
	}
	for _, c := range s.calls() {
		if err := c.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Println("ok     ", c.name)
	}
	for _, m := range s.mistakes() {
		message, err := m.refused(m.do(ctx))
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("ok      %s: %s: %s\n", m.name, m.code, message)
	}
	_, err = s.DeleteApp(ctx, &pinpoint.DeleteAppInput{ApplicationId: &s.app})
	return err
}

// call is one thing that must work.
type call struct {
	name string
	do   func(context.Context) error
}

// mistake is one call that must be refused.
type mistake struct {
	name    string
	code    string // the exception
	message string // a regular expression that its message matches
	// typed reports whether the error is the SDK's own type of that name; nil where
	// the SDK has none.
	typed func(error) bool
	do    func(context.Context) error
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// refused tells what the service said, or what is wrong with that.
func (m *mistake) refused(err error) (message string, _ error) {
	fault, ok := errors.AsType[smithy.APIError](err)
	switch {
	case err == nil:
		return "", errors.New("it was accepted")
	case !ok:
		return "", fmt.Errorf("the answer is no exception: %w", err)
	case fault.ErrorCode() != m.code:
		return "", fmt.Errorf("got %w, want %s", err, m.code)
	case m.typed != nil && !m.typed(err):
		return "", fmt.Errorf("got a %T, want the SDK's own type of %s", fault, m.code)
	case !regexp.MustCompile(m.message).MatchString(fault.ErrorMessage()):
		return "", fmt.Errorf("the message is %q, want %s", fault.ErrorMessage(), m.message)
	}
	return fault.ErrorMessage(), nil
}

// until asks again and again whether something has happened.
func until(ctx context.Context, what string, happened func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := happened(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}
