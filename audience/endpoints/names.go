package endpoints

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// kindNames rows hold, one for each app, the custom names in use and the names
// that RemoveAttributes blocked. It is a record, so that names which two
// Regions add at the same time unite:
//
//	Attributes.{name}, Metrics.{name}, UserAttributes.{name}   in use
//	Block.Attributes.{pattern} and so on                       blocked
var kindNames = store.Kind{Name: "endpoint-names", Rule: changelog.RuleRecord}

const prefixBlock = "Block."

// names is an app's row as it was read.
type names struct {
	body   []byte
	record changelog.Record
	used   map[string]struct{} // by path
	blocks []string            // patterns of paths
}

func (n *names) blocked(path string) bool {
	return slices.ContainsFunc(n.blocks, func(pattern string) bool { return match(pattern, path) })
}

// strip returns the sets without the blocked names.
func (n *names) strip(sets []set) []set {
	if len(n.blocks) == 0 || !slices.ContainsFunc(sets, func(s set) bool { return isCustom(s.path) && n.blocked(s.path) }) {
		return sets
	}
	return slices.DeleteFunc(slices.Clone(sets), func(s set) bool { return isCustom(s.path) && n.blocked(s.path) })
}

// fresh appends to list the paths of the sets that give a value to a name
// which the app does not use yet.
func (n *names) fresh(list []string, sets []set) []string {
	for _, s := range sets {
		if s.value == nil || !isCustom(s.path) {
			continue
		}
		if _, ok := n.used[s.path]; !ok && !slices.Contains(list, s.path) {
			list = append(list, s.path)
		}
	}
	return list
}

func isCustom(path string) bool {
	return strings.HasPrefix(path, prefixAttributes) || strings.HasPrefix(path, prefixMetrics) || strings.HasPrefix(path, prefixUserAttrs)
}

// memory keeps, for each app, what its two small rows said when they were last
// read. It is asked with the rows' present bytes, so it is never out of date.
type memory struct {
	mu    sync.Mutex
	apps  map[string]appMemo
	names map[string]*names
}

type appMemo struct {
	body    []byte
	account string // empty when the app is deleted
}

// memoryMax bounds both maps; they start over when they are full.
const memoryMax = 4096

// own returns the fault that the account has no such app, if it has none.
func (m *memory) own(r store.Reader, account, app string) error {
	body, err := r.Get(apps.Kind, app)
	if err != nil {
		return err
	}
	if body == nil {
		return apps.NotFound()
	}
	m.mu.Lock()
	memo, ok := m.apps[app]
	m.mu.Unlock()
	if !ok || !bytes.Equal(memo.body, body) {
		a, err := apps.Decode(body)
		if err != nil {
			return err
		}
		memo = appMemo{body: body, account: a.Account}
		if a.DeletedAt != "" {
			memo.account = ""
		}
		m.mu.Lock()
		if m.apps == nil || len(m.apps) >= memoryMax {
			m.apps = map[string]appMemo{}
		}
		m.apps[app] = memo
		m.mu.Unlock()
	}
	if memo.account == "" || memo.account != account {
		return apps.NotFound()
	}
	return nil
}

// namesOf returns the app's names. The result is shared and not changed.
func (m *memory) namesOf(r store.Reader, app string) (*names, error) {
	body, err := r.Get(kindNames, AppPrefix(app))
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	n := m.names[app]
	m.mu.Unlock()
	if n != nil && bytes.Equal(n.body, body) {
		return n, nil
	}
	n = &names{body: body, used: map[string]struct{}{}}
	if body != nil {
		if n.record, err = changelog.DecodeRecord(body); err != nil {
			return nil, err
		}
	}
	for i := range n.record.Registers {
		g := &n.record.Registers[i]
		if g.Value == nil {
			continue
		}
		if pattern, ok := strings.CutPrefix(g.Path, prefixBlock); ok {
			n.blocks = append(n.blocks, pattern)
		} else {
			n.used[g.Path] = struct{}{}
		}
	}
	m.mu.Lock()
	if m.names == nil || len(m.names) >= memoryMax {
		m.names = map[string]*names{}
	}
	m.names[app] = n
	m.mu.Unlock()
	return n, nil
}

// admit checks that the app may use the fresh names as well.
//
// Source: engagement 2.3, 12.
func (n *names) admit(fresh []string, limit int) error {
	if len(fresh) > 0 && len(n.used)+len(fresh) > limit {
		return aws.Quota("Too many custom attributes")
	}
	return nil
}

// add writes the fresh names into the app's row.
func (n *names) add(tx *store.Tx, app string, fresh []string) error {
	slices.Sort(fresh)
	sets := make([]set, len(fresh))
	for i, path := range fresh {
		sets[i] = set{path: path, value: present}
	}
	return n.change(tx, app, sets)
}

// present is the value of a register that only says that it is there.
var present = []byte{1}

// change writes the app's row with the sets, which are sorted, applied.
func (n *names) change(tx *store.Tx, app string, sets []set) error {
	r := n.record
	r.Registers = assign(r.Registers, sets, true, tx.Stamp(n.record.Latest()))
	return tx.Put(kindNames, AppPrefix(app), changelog.AppendRecord(nil, &r))
}

// match reports whether a name fits a glob pattern: * stands for any run of
// characters, ? for one byte. Its time is bounded by the product of the lengths.
func match(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
