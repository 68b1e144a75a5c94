package templates

import (
	"fmt"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// The rows of this room. A template is a head, found by its name, and for each
// version a small row and its content under the id of the head: a name that is
// deleted and made again has another id, and so nothing of its former life.
var (
	kindHead    = store.Kind{Name: "template", Rule: changelog.RuleDocument, Safety: true}         // account/name/TYPE
	kindVersion = store.Kind{Name: "template-version", Rule: changelog.RuleDocument, Safety: true} // id/version
	kindContent = store.Kind{Name: "template-content", Rule: changelog.RuleDocument, Safety: true} // id/version
	kindCount   = store.Kind{Name: "template-count", Rule: changelog.RuleDocument, Safety: true}   // account
	kindSweep   = store.Kind{Name: "template-sweep", Rule: changelog.RuleLocal}                    // due/id/version
)

// head is a template without what its versions say.
type head struct {
	Account          string
	Name             string
	Type             Type
	ID               string            // 32 hex digits; of this life of the name
	Tags             map[string]string `json:",omitempty"`
	CreationDate     string
	LastModifiedDate string
	Active           int
	Latest           int    // the highest version there is
	Last             int    // the highest version there ever was
	Versions         int    // how many there are
	DeletedAt        string `json:",omitempty"` // of a tombstone; empty while the template lives
}

// version is one version without its content.
type version struct {
	CreationDate     string
	LastModifiedDate string
	DeletedAt        string `json:",omitempty"`
}

// count is how many templates an account has.
type count struct {
	Templates int
}

// sweepItem says that a deleted version, or a deleted template, is to be
// forgotten when its time has come.
type sweepItem struct {
	Head    string // key of the head
	ID      string
	Version int // 0: the whole template
}

const (
	templatesMax = 20_000 // of an account
	versionsMax  = 5_000  // of a template

	// tombstoneLife is how long the content of what was deleted stays, for the
	// messages that were configured from it: as long as the longest default
	// journey. Source: engagement 5.2, 10.
	tombstoneLife = 540 * 24 * time.Hour

	sweepItems    = 4  // looked at along with one write
	sweepVersions = 25 // forgotten along with one write, for each item
)

func headKey(account, name string, t Type) string { return account + "/" + name + "/" + string(t) }

// versionKey sorts as its number.
func versionKey(id string, n int) string { return fmt.Sprintf("%s/%010d", id, n) }

// parseVersion reads a version number as requests carry it; 0 when there is none.
func parseVersion(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || strconv.Itoa(n) != s {
		return 0, aws.InvalidMember("Version", "Version: %q is not the number of a version", quote(s))
	}
	return n, nil
}

func notFound() error { return aws.NotFound("Resource not found") }

// load returns the head of a living template.
func load(r store.Reader, account, name string, t Type) (*head, error) {
	h, err := store.Load[head](r, kindHead, headKey(account, name, t))
	if err != nil {
		return nil, err
	}
	if h == nil || h.DeletedAt != "" {
		return nil, notFound()
	}
	return h, nil
}

// loadVersion returns a version that was not deleted.
func loadVersion(r store.Reader, h *head, n int) (*version, error) {
	v, err := store.Load[version](r, kindVersion, versionKey(h.ID, n))
	if err != nil {
		return nil, err
	}
	if v == nil || v.DeletedAt != "" {
		return nil, notFound()
	}
	return v, nil
}

func loadContent(r store.Reader, h *head, n int) (*Content, error) {
	c, err := store.Load[Content](r, kindContent, versionKey(h.ID, n))
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, notFound()
	}
	c.Name, c.Version = h.Name, n
	return c, nil
}

// Resolve returns what a message says that names a template: the version it is
// pinned to, or, when version is empty, the one that is active now. Deleting a
// template or a version leaves the messages that were configured from it alone,
// so Resolve finds it for 540 more days; whoever configures a message asks
// [Exists] instead.
//
// Source: engagement 5.2.
func Resolve(r store.Reader, account, name string, t Type, version string) (*Content, error) {
	n, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	h, err := store.Load[head](r, kindHead, headKey(account, name, t))
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, aws.NotFound("There is no %s template %q", t, quote(name))
	}
	if n == 0 {
		n = h.Active
	}
	c, err := loadContent(r, h, n)
	if aws.KindOf(err) == aws.KindNotFound {
		return nil, aws.NotFound("The %s template %q has no version %d", t, quote(name), n)
	}
	return c, err
}

// Exists returns nil if a message may be configured from the template, and from
// the version when one is given; else a fault that says what is not there.
func Exists(r store.Reader, account, name string, t Type, version string) error {
	n, err := parseVersion(version)
	if err != nil {
		return err
	}
	h, err := load(r, account, name, t)
	if err == nil && n > 0 {
		_, err = loadVersion(r, h, n)
	}
	if aws.KindOf(err) == aws.KindNotFound && err != nil {
		if n > 0 {
			return aws.Invalid("There is no version %d of a %s template %q", n, t, quote(name))
		}
		return aws.Invalid("There is no %s template %q", t, quote(name))
	}
	return err
}

// TagsOf returns the tags of an account's template.
func TagsOf(r store.Reader, account, name string, t Type) (map[string]string, error) {
	h, err := load(r, account, name, t)
	if err != nil {
		return nil, err
	}
	return h.Tags, nil
}

// SetTags replaces the tags of an account's template.
func SetTags(tx *store.Tx, account, name string, t Type, tags map[string]string) error {
	h, err := load(tx, account, name, t)
	if err != nil {
		return err
	}
	h.Tags = tags
	return saveHead(tx, h)
}

func saveHead(tx *store.Tx, h *head) error {
	return store.Save(tx, kindHead, headKey(h.Account, h.Name, h.Type), h)
}

// put writes a version's row and content.
func put(tx *store.Tx, h *head, n int, v *version, c *Content) error {
	if err := store.Save(tx, kindVersion, versionKey(h.ID, n), v); err != nil {
		return err
	}
	return store.Save(tx, kindContent, versionKey(h.ID, n), c)
}

// latestOf returns the highest version of a template that is left, 0 for none.
func latestOf(tx *store.Tx, h *head) (int, error) {
	// Rows of deleted versions stay for a time, so their number is bounded only
	// by how often somebody makes and deletes versions: in pages, then.
	latest, after := 0, ""
	for {
		rows, err := tx.List(kindVersion, h.ID+"/", after, versionsPage)
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			v, err := store.Decode[version](kindVersion, row.Body)
			if err != nil {
				return 0, err
			}
			if v.DeletedAt == "" {
				if latest, err = numberOf(row.Key); err != nil {
					return 0, err
				}
			}
			after = row.Key
		}
		if len(rows) < versionsPage {
			return latest, nil
		}
	}
}

const versionsPage = 1000

// numberOf reads the version number of a version's key.
func numberOf(key string) (int, error) {
	if len(key) < 10 {
		return 0, fmt.Errorf("templates: key %q names no version", key)
	}
	return strconv.Atoi(key[len(key)-10:])
}

// addToCount changes how many templates the account has, and reports one too many.
func addToCount(tx *store.Tx, account string, n int) error {
	c, err := store.Load[count](tx, kindCount, account)
	if err != nil {
		return err
	}
	if c == nil {
		c = &count{}
	}
	if c.Templates += n; c.Templates > templatesMax {
		return aws.Quota("The account has %d templates, the most it may have", templatesMax)
	}
	return store.Save(tx, kindCount, account, c)
}

// forget has an item swept once it is due.
func forget(tx *store.Tx, due time.Time, item *sweepItem) error {
	key := fmt.Sprintf("%012d/%s", due.Unix(), versionKey(item.ID, item.Version))
	return store.Save(tx, kindSweep, key, item)
}

// sweep removes for good a little of what is due. It runs along with writes,
// which is where everything that it removes comes from.
func sweep(tx *store.Tx, now time.Time) error {
	rows, err := tx.List(kindSweep, "", "", sweepItems)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Key > fmt.Sprintf("%012d", now.Unix())+"~" {
			return nil
		}
		item, err := store.Decode[sweepItem](kindSweep, row.Body)
		if err != nil {
			return err
		}
		done, err := sweepOne(tx, item)
		if err != nil {
			return err
		}
		if !done {
			return nil
		}
		if err := tx.Remove(kindSweep, row.Key); err != nil {
			return err
		}
	}
	return nil
}

func sweepOne(tx *store.Tx, item *sweepItem) (done bool, err error) {
	if item.Version > 0 {
		return true, removeVersion(tx, versionKey(item.ID, item.Version))
	}
	rows, err := tx.List(kindVersion, item.ID+"/", "", sweepVersions)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if err := removeVersion(tx, row.Key); err != nil {
			return false, err
		}
	}
	if len(rows) == sweepVersions {
		return false, nil
	}
	h, err := store.Load[head](tx, kindHead, item.Head)
	if err != nil || h == nil || h.ID != item.ID || h.DeletedAt == "" {
		return true, err // the name has another life
	}
	return true, tx.Remove(kindHead, item.Head)
}

func removeVersion(tx *store.Tx, key string) error {
	if err := tx.Remove(kindContent, key); err != nil {
		return err
	}
	return tx.Remove(kindVersion, key)
}
