package tags

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// An Owner is a kind of resource that carries tags, and how to reach them.
type Owner struct {
	// Pattern is the ARN's resource part, with {} for each name in it:
	// "apps/{}/campaigns/{}". Names are never empty and hold no slash.
	Pattern string
	// Tags reads the tags of an account's resource; names are what stood for
	// the {} of the pattern. aws.NotFound when the account has no such resource.
	Tags func(r store.Reader, account string, names []string) (map[string]string, error)
	// SetTags replaces the tags of a resource that Tags has just read within tx.
	SetTags func(tx *store.Tx, account string, names []string, tags map[string]string) error
}

// Config says whose ARNs are ours.
type Config struct {
	// Regions are Regions, besides the one that processes a request, whose ARNs
	// name resources of this installation.
	Regions []string
}

// Service answers the tag operations. Create it with New; it is safe for
// concurrent use.
type Service struct {
	cfg    Config
	store  *store.Store
	owners []owner
}

type owner struct {
	Owner
	parts []string
}

// New returns the room over the resources of its owners.
func New(cfg Config, st *store.Store, owners ...Owner) *Service {
	s := &Service{cfg: cfg, store: st}
	for _, o := range owners {
		s.owners = append(s.owners, owner{o, strings.Split(o.Pattern, "/")})
	}
	return s
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.TagResource, "{ResourceArn}", s.tag)
	wire.Handle(m, pinpoint.UntagResource, "{ResourceArn}", s.untag)
	wire.Handle(m, pinpoint.ListTagsForResource, "{ResourceArn}", s.list)
}

// tag answers TagResource: it adds tags, and overwrites those of equal key.
func (s *Service) tag(ctx context.Context, in *pinpoint.TagResourceRequest) (*wire.Empty, error) {
	given := in.TagsModel.Tags
	if err := Check(given); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, in.ResourceArn, func(tags map[string]string) error {
		maps.Copy(tags, given)
		if n := counted(tags); n > tagsMax {
			return aws.InvalidMember("tags", "tags: the resource would have %d tags, more than %d", n, tagsMax)
		}
		return nil
	})
}

// untag answers UntagResource: it removes the tags of the given keys.
func (s *Service) untag(ctx context.Context, in *pinpoint.UntagResourceRequest) (*wire.Empty, error) {
	if n := len(in.TagKeys); n > tagsMax {
		return nil, aws.InvalidMember("tagKeys", "tagKeys: %d keys, more than %d", n, tagsMax)
	}
	for _, key := range in.TagKeys {
		if err := checkKey("tagKeys", key); err != nil {
			return nil, err
		}
	}
	return nil, s.change(ctx, in.ResourceArn, func(tags map[string]string) error {
		for _, key := range in.TagKeys {
			delete(tags, key)
		}
		return nil
	})
}

// list answers ListTagsForResource. A resource without tags has an empty map.
// Source: clients, Small habits.
func (s *Service) list(ctx context.Context, in *pinpoint.ListTagsForResourceRequest) (*pinpoint.ListTagsForResourceResponse, error) {
	caller := aws.CallerFrom(ctx)
	o, names, err := s.find(caller, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags, err := o.Tags(s.store.Reader(ctx), caller.Account, names)
	if err != nil {
		return nil, err
	}
	if tags == nil {
		tags = map[string]string{}
	}
	return &pinpoint.ListTagsForResourceResponse{TagsModel: &pinpoint.TagsModel{Tags: tags}}, nil
}

// change applies fn to a copy of a resource's tags and writes what it made of
// them, unless that is the same.
func (s *Service) change(ctx context.Context, arn string, fn func(tags map[string]string) error) error {
	caller := aws.CallerFrom(ctx)
	o, names, err := s.find(caller, arn)
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		was, err := o.Tags(tx, caller.Account, names)
		if err != nil {
			return err
		}
		tags := maps.Clone(was)
		if tags == nil {
			tags = map[string]string{}
		}
		if err := fn(tags); err != nil {
			return err
		}
		if maps.Equal(was, tags) {
			return nil
		}
		return o.SetTags(tx, caller.Account, names, tags)
	})
}

// find returns the owner of the resource that an ARN names, and the names in
// it. What is not the caller's, or not here, is forbidden.
//
// Source: engagement 12: cross-account or wrong-Region ARNs.
func (s *Service) find(caller aws.Caller, text string) (*owner, []string, error) {
	arn, err := aws.ParseARN(text)
	if err != nil || arn.Service != pinpoint.Service.ARNNamespace {
		return nil, nil, aws.InvalidMember("ResourceArn", "ResourceArn: expected arn:aws:%s:{region}:{account}:{resource}", pinpoint.Service.ARNNamespace)
	}
	if arn.Account != caller.Account {
		return nil, nil, aws.Forbidden("ResourceArn: the resource is not of this account")
	}
	if arn.Partition != "aws" || arn.Region != caller.Region && !slices.Contains(s.cfg.Regions, arn.Region) {
		return nil, nil, aws.Forbidden("ResourceArn: the resource is not in this Region")
	}
	parts := strings.Split(arn.Resource, "/")
	for i := range s.owners {
		if names, ok := match(s.owners[i].parts, parts); ok {
			return &s.owners[i], names, nil
		}
	}
	return nil, nil, aws.InvalidMember("ResourceArn", "ResourceArn: no resource of this kind carries tags")
}

// match returns what stands for the {} of a pattern.
func match(pattern, parts []string) (names []string, ok bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	for i, p := range pattern {
		switch {
		case p == "{}" && parts[i] != "":
			names = append(names, parts[i])
		case p != parts[i]:
			return nil, false
		}
	}
	return names, true
}
