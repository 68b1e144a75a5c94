package templates

import (
	"context"
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// draft is what a request wants a template to say.
type draft struct {
	Content
	tags map[string]string // counts on creation only
}

// view is a version as a request sees it.
type view struct {
	*Content
	arn, created, modified, version string
	tags                            map[string]string
}

func accepted(caller aws.Caller) *pinpoint.MessageBody {
	message := "Accepted"
	return &pinpoint.MessageBody{Message: &message, RequestID: &caller.RequestID}
}

// touch names the rows that every write of a template reads.
func touch(account, name string, t Type) []store.Touch {
	return []store.Touch{{Kind: kindHead, Key: headKey(account, name, t)}, {Kind: kindCount, Key: account}}
}

// create makes version 1 of a template, active at once.
//
// Source: engagement 5.2, Create; 1.3.
func (s *Service) create(ctx context.Context, name string, d *draft) (*pinpoint.CreateTemplateMessageBody, error) {
	caller := aws.CallerFrom(ctx)
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := tags.Check(d.tags); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	id, now := s.ids.Hex(), s.now()
	date := aws.Timestamp(now)
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		key := headKey(caller.Account, name, d.Type)
		was, err := store.Load[head](tx, kindHead, key)
		if err != nil {
			return err
		}
		switch {
		case was == nil:
		case was.DeletedAt == "":
			return aws.InvalidMember("TemplateName", "There is a template of this type named %q already", quote(name))
		default:
			if err := forget(tx, now, &sweepItem{Head: key, ID: was.ID}); err != nil {
				return err
			}
		}
		if err := addToCount(tx, caller.Account, 1); err != nil {
			return err
		}
		h := &head{
			Account: caller.Account, Name: name, Type: d.Type, ID: id, Tags: d.tags,
			CreationDate: date, LastModifiedDate: date, Active: 1, Latest: 1, Last: 1, Versions: 1,
		}
		if err := put(tx, h, 1, &version{CreationDate: date, LastModifiedDate: date}, &d.Content); err != nil {
			return err
		}
		if err := saveHead(tx, h); err != nil {
			return err
		}
		return sweep(tx, now)
	}, touch(caller.Account, name, d.Type)...)
	if err != nil {
		return nil, err
	}
	arn, message := ARN(caller.Region, caller.Account, name, d.Type), "Created"
	return &pinpoint.CreateTemplateMessageBody{Arn: &arn, Message: &message, RequestID: &caller.RequestID}, nil
}

// get reads the active version of a template, or the one that is named.
func (s *Service) get(ctx context.Context, name string, t Type, named *string) (*view, error) {
	caller := aws.CallerFrom(ctx)
	n, err := parseVersion(text(named))
	if err != nil {
		return nil, err
	}
	r := s.store.Reader(ctx)
	h, err := load(r, caller.Account, name, t)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		n = h.Active
	}
	v, err := loadVersion(r, h, n)
	if err != nil {
		return nil, err
	}
	c, err := loadContent(r, h, n)
	if err != nil {
		return nil, err
	}
	return &view{
		Content: c, arn: ARN(caller.Region, caller.Account, name, t), created: h.CreationDate, modified: v.LastModifiedDate,
		version: strconv.Itoa(n), tags: h.Tags,
	}, nil
}

// update overwrites the latest version, or adds one. Tags are left as they are.
//
// Source: engagement 5.2, Update; 1.3.
func (s *Service) update(ctx context.Context, name string, d *draft, named *string, add *bool) (*pinpoint.MessageBody, error) {
	caller := aws.CallerFrom(ctx)
	n, err := parseVersion(text(named))
	if err != nil {
		return nil, err
	}
	adds := add != nil && *add
	if adds && n > 0 {
		return nil, aws.InvalidMember("Version", "Version: a version is not named when a new one is created")
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	now := s.now()
	date := aws.Timestamp(now)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		h, err := load(tx, caller.Account, name, d.Type)
		if err != nil {
			return err
		}
		if n > 0 && n != h.Latest {
			return aws.InvalidMember("Version", "Version: only the latest version, %d, can be changed", h.Latest)
		}
		v := &version{CreationDate: date}
		if adds {
			if h.Versions >= versionsMax {
				return aws.Quota("The template has %d versions, the most it may have", versionsMax)
			}
			h.Last++
			h.Latest = h.Last
			h.Versions++
		} else if v, err = loadVersion(tx, h, h.Latest); err != nil {
			return err
		}
		v.LastModifiedDate, h.LastModifiedDate = date, date
		if err := put(tx, h, h.Latest, v, &d.Content); err != nil {
			return err
		}
		if err := saveHead(tx, h); err != nil {
			return err
		}
		return sweep(tx, now)
	}, touch(caller.Account, name, d.Type)...)
	if err != nil {
		return nil, err
	}
	return accepted(caller), nil
}

// delete removes a template, or one version of it; with its last version the
// template goes. What is removed stays as a tombstone for a time; see [Resolve].
//
// Source: engagement 5.2, Delete.
func (s *Service) delete(ctx context.Context, name string, t Type, named *string) (*pinpoint.MessageBody, error) {
	caller := aws.CallerFrom(ctx)
	n, err := parseVersion(text(named))
	if err != nil {
		return nil, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		h, err := load(tx, caller.Account, name, t)
		if err != nil {
			return err
		}
		if n > 0 {
			if _, err := loadVersion(tx, h, n); err != nil {
				return err
			}
		}
		if n > 0 && h.Versions > 1 {
			err = s.deleteVersion(tx, h, n)
		} else {
			err = s.deleteAll(tx, h)
		}
		if err != nil {
			return err
		}
		return sweep(tx, s.now())
	}, touch(caller.Account, name, t)...)
	if err != nil {
		return nil, err
	}
	return accepted(caller), nil
}

func (s *Service) deleteAll(tx *store.Tx, h *head) error {
	now := s.now()
	h.DeletedAt, h.Tags = aws.Timestamp(now), nil
	if err := addToCount(tx, h.Account, -1); err != nil {
		return err
	}
	if err := forget(tx, now.Add(tombstoneLife), &sweepItem{Head: headKey(h.Account, h.Name, h.Type), ID: h.ID}); err != nil {
		return err
	}
	return saveHead(tx, h)
}

func (s *Service) deleteVersion(tx *store.Tx, h *head, n int) error {
	v, err := loadVersion(tx, h, n)
	if err != nil {
		return err
	}
	now := s.now()
	v.DeletedAt = aws.Timestamp(now)
	if err := store.Save(tx, kindVersion, versionKey(h.ID, n), v); err != nil {
		return err
	}
	if err := forget(tx, now.Add(tombstoneLife), &sweepItem{Head: headKey(h.Account, h.Name, h.Type), ID: h.ID, Version: n}); err != nil {
		return err
	}
	h.Versions--
	h.LastModifiedDate = v.DeletedAt
	if n == h.Latest {
		if h.Latest, err = latestOf(tx, h); err != nil {
			return err
		}
	}
	if n == h.Active {
		h.Active = h.Latest
	}
	return saveHead(tx, h)
}

// activate answers UpdateTemplateActiveVersion.
func (s *Service) activate(ctx context.Context, in *pinpoint.UpdateTemplateActiveVersionRequest) (*pinpoint.UpdateTemplateActiveVersionResponse, error) {
	caller := aws.CallerFrom(ctx)
	t, err := ParseType(string(in.TemplateType))
	if err != nil {
		return nil, err
	}
	named := text(in.TemplateActiveVersionRequest.Version)
	if named == "" {
		return nil, aws.InvalidMember("Version", `Version: expected the number of a version, or "latest"`)
	}
	n := 0
	if named != "latest" {
		if n, err = parseVersion(named); err != nil {
			return nil, err
		}
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		h, err := load(tx, caller.Account, in.TemplateName, t)
		if err != nil {
			return err
		}
		active := n
		if active == 0 {
			active = h.Latest
		}
		if _, err := loadVersion(tx, h, active); err != nil {
			return err
		}
		h.Active = active
		return saveHead(tx, h)
	}, touch(caller.Account, in.TemplateName, t)...)
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateTemplateActiveVersionResponse{MessageBody: accepted(caller)}, nil
}

// list answers ListTemplates, in the order of names. Items leave out Arn, tags,
// DefaultSubstitutions and TemplateDescription.
//
// Source: engagement 5, 5.2.
func (s *Service) list(ctx context.Context, in *pinpoint.ListTemplatesRequest) (*pinpoint.ListTemplatesResponse, error) {
	caller := aws.CallerFrom(ctx)
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	prefix, only := text(in.Prefix), Type(in.TemplateType)
	scope := strings.Join([]string{"ListTemplates", caller.Account, prefix, string(only)}, "\x00")
	after, err := s.tokens.Open(scope, text(in.NextToken))
	if err != nil {
		return nil, err
	}
	out := &pinpoint.TemplatesResponse{Item: []pinpoint.TemplateResponse{}}
	r := s.store.Reader(ctx)
	for {
		// One more than a page, so that the last page knows that it is.
		rows, err := r.List(kindHead, caller.Account+"/"+prefix, after, size+1)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			h, err := store.Decode[head](kindHead, row.Body)
			if err != nil {
				return nil, err
			}
			if h.DeletedAt == "" && (only == "" || h.Type == only) {
				if len(out.Item) == size {
					out.NextToken = given(s.tokens.Seal(scope, after))
					return &pinpoint.ListTemplatesResponse{TemplatesResponse: out}, nil
				}
				active := strconv.Itoa(h.Active)
				out.Item = append(out.Item, pinpoint.TemplateResponse{
					CreationDate: h.CreationDate, LastModifiedDate: h.LastModifiedDate,
					TemplateName: h.Name, TemplateType: pinpoint.TemplateType(h.Type), Version: &active,
				})
			}
			after = row.Key
		}
		if len(rows) <= size {
			return &pinpoint.ListTemplatesResponse{TemplatesResponse: out}, nil
		}
	}
}

// listVersions answers ListTemplateVersions, in the order of their numbers.
func (s *Service) listVersions(ctx context.Context, in *pinpoint.ListTemplateVersionsRequest) (*pinpoint.ListTemplateVersionsResponse, error) {
	caller := aws.CallerFrom(ctx)
	t, err := ParseType(string(in.TemplateType))
	if err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	r := s.store.Reader(ctx)
	h, err := load(r, caller.Account, in.TemplateName, t)
	if err != nil {
		return nil, err
	}
	scope := strings.Join([]string{"ListTemplateVersions", caller.Account, h.ID}, "\x00")
	after, err := s.tokens.Open(scope, text(in.NextToken))
	if err != nil {
		return nil, err
	}
	message := "Accepted"
	out := &pinpoint.TemplateVersionsResponse{
		Item: []pinpoint.TemplateVersionResponse{}, Message: &message, RequestID: &caller.RequestID,
	}
	for {
		rows, err := r.List(kindVersion, h.ID+"/", after, size+1)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			v, err := store.Decode[version](kindVersion, row.Body)
			if err != nil {
				return nil, err
			}
			if v.DeletedAt == "" {
				if len(out.Item) == size {
					out.NextToken = given(s.tokens.Seal(scope, after))
					return &pinpoint.ListTemplateVersionsResponse{TemplateVersionsResponse: out}, nil
				}
				n, err := numberOf(row.Key)
				if err != nil {
					return nil, err
				}
				number := strconv.Itoa(n)
				out.Item = append(out.Item, pinpoint.TemplateVersionResponse{
					CreationDate: v.CreationDate, LastModifiedDate: v.LastModifiedDate,
					TemplateName: h.Name, TemplateType: string(t), Version: &number,
				})
			}
			after = row.Key
		}
		if len(rows) <= size {
			return &pinpoint.ListTemplateVersionsResponse{TemplateVersionsResponse: out}, nil
		}
	}
}
