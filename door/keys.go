package door

import (
	"context"
	"fmt"
	"strings"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
)

// A StaticKey is an access key from the configuration.
type StaticKey struct {
	AccessKeyID string          // 16 to 128 letters, digits and underscores
	Secret      sigv4.SecretKey // at least 16 bytes; refuses to print
	Account     string          // 12 digits
	Principal   string          // ARN; empty means the account's root
}

// StaticKeys are the access keys of the configuration. They authenticate, and
// they authorise: a configured key may do everything within its own account,
// and nobody else anything.
type StaticKeys struct {
	keys map[string]StaticKey
}

var (
	_ Authenticator = (*StaticKeys)(nil)
	_ Authorizer    = (*StaticKeys)(nil)
)

// NewStaticKeys checks the keys; the error names the one that is wrong.
func NewStaticKeys(keys ...StaticKey) (*StaticKeys, error) {
	s := &StaticKeys{keys: make(map[string]StaticKey, len(keys))}
	for _, k := range keys {
		if len(k.AccessKeyID) < 16 || len(k.AccessKeyID) > 128 || strings.ContainsFunc(k.AccessKeyID, notWord) {
			return nil, fmt.Errorf("access key id %q is not 16 to 128 letters, digits and underscores", k.AccessKeyID)
		}
		if _, twice := s.keys[k.AccessKeyID]; twice {
			return nil, fmt.Errorf("access key %s is configured twice", k.AccessKeyID)
		}
		if len(k.Secret) < 16 {
			return nil, fmt.Errorf("the secret of access key %s is shorter than 16 bytes", k.AccessKeyID)
		}
		if len(k.Account) != 12 || strings.Trim(k.Account, "0123456789") != "" {
			return nil, fmt.Errorf("account %q of access key %s is not 12 digits", k.Account, k.AccessKeyID)
		}
		if k.Principal == "" {
			k.Principal = "arn:aws:iam::" + k.Account + ":root"
		}
		if arn, err := aws.ParseARN(k.Principal); err != nil || arn.Account != k.Account {
			return nil, fmt.Errorf("principal %q of access key %s is not an ARN in account %s", k.Principal, k.AccessKeyID, k.Account)
		}
		s.keys[k.AccessKeyID] = k
	}
	return s, nil
}

func notWord(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// Identity returns the holder of a configured key. None has a session token.
func (s *StaticKeys) Identity(_ context.Context, accessKeyID string, sessionToken sigv4.SecretKey) (Identity, error) {
	k, ok := s.keys[accessKeyID]
	if !ok || sessionToken != "" {
		return Identity{}, sigv4.UnknownKey()
	}
	return Identity{Secret: sigv4.Secret{Key: k.Secret}, Account: k.Account, Principal: k.Principal}, nil
}

// Allow lets the holder of a configured key do anything to "*" and to what lies
// in its account.
func (s *StaticKeys) Allow(_ context.Context, caller aws.Caller, action, resource string) error {
	k, ok := s.keys[caller.AccessKeyID]
	if !ok || k.Principal != caller.Principal || k.Account != caller.Account || action == "" {
		return Denied(caller, action, resource)
	}
	if resource == "*" {
		return nil
	}
	if arn, err := aws.ParseARN(resource); err != nil || arn.Account != caller.Account {
		return Denied(caller, action, resource)
	}
	return nil
}
