package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// model is one file of models/, merged with its overlay. The form is described
// in models/README.md and models/overlay/README.md.
type model struct {
	Service        string                `json:"service"`
	Version        string                `json:"version"`
	ARNNamespace   string                `json:"arnNamespace"`
	EndpointPrefix string                `json:"endpointPrefix"`
	SigningName    string                `json:"signingName"`
	ActionPrefix   string                `json:"actionPrefix"`
	Global         bool                  `json:"global"`
	Protocol       string                `json:"protocol"`
	TargetPrefix   string                `json:"targetPrefix"`
	TargetAliases  []string              `json:"targetAliases"`
	XMLNamespace   string                `json:"xmlNamespace"`
	Uses           map[string][]string   `json:"uses"` // package: shapes taken from it as they are
	Absent         map[string]string     `json:"absent"`
	Called         string                `json:"called"`     // why the model is here for a client only; empty: it is served
	Planes         map[string][]string   `json:"planes"`     // "control" and "data", and the operations of each
	Remembered     []string              `json:"remembered"` // operations whose first answer every Region keeps
	Operations     map[string]*operation `json:"operations"`
	Shapes         map[string]*shape     `json:"shapes"`

	file string // "pinpoint-email": the name in models/
	pkg  string // "pinpointemail"
	sum  string // SHA-256 of the model and its overlay, in hex
	used map[string]*model
}

type operation struct {
	Method     string          `json:"method"`
	URI        string          `json:"uri"`
	Aliases    []string        `json:"aliases"`
	Code       int             `json:"code"`
	Input      string          `json:"input"`
	Output     string          `json:"output"`
	Errors     []string        `json:"errors"`
	Unsigned   bool            `json:"unsigned"`
	Idempotent bool            `json:"idempotent"`
	FoldCase   bool            `json:"foldCase"`
	Compressed json.RawMessage `json:"requestCompression"` // for clients too
	Paginated  json.RawMessage `json:"paginated"`          // for clients; nothing here reads it
}

type shape struct {
	Type    string             `json:"type"`
	Members map[string]*member `json:"members"`
	Member  string             `json:"member"`
	Key     string             `json:"key"`
	Value   string             `json:"value"`
	Values  []string           `json:"values"`
	Error   string             `json:"error"`
	Status  int                `json:"status"`
	Code    string             `json:"code"`
	Format  string             `json:"timestampFormat"`
	rules
}

type member struct {
	Type         string `json:"type"`
	Required     bool   `json:"required"`
	Default      any    `json:"default"`
	In           string `json:"in"`
	Name         string `json:"name"`
	JSONName     string `json:"jsonName"`
	Token        bool   `json:"idempotencyToken"`
	ScalarAsList bool   `json:"scalarAsList"`
	Open         bool   `json:"open"`
	Upper        bool   `json:"upper"`
	rules
}

// rules are the bounds that shapes and members share. In lengths and ranges
// null leaves a side open.
type rules struct {
	Length    []*int     `json:"length"`
	Range     []*float64 `json:"range"`
	Pattern   string     `json:"pattern"`
	Sensitive bool       `json:"sensitive"`
}

// packages names the generated package of each model, in the order of the
// coverage page. A model that others use comes before them.
var packages = []struct{ file, pkg string }{
	{"pinpoint", "pinpoint"},
	{"pinpoint-sms-voice-v2", "smsvoicev2"},
	{"pinpoint-sms-voice", "smsvoice"},
	{"pinpoint-email", "pinpointemail"},
	{"everpoint", "everpoint"},
	{"iam", "iam"},
	{"sts", "sts"},
	{"cloudtrail", "cloudtrail"},
	{"cloudwatch", "cloudwatch"},
	{"cognito-identity", "cognitoidentity"},
	{"personalize-runtime", "personalizeruntime"},
}

// load reads every model below dir with its overlay.
func load(dir string) ([]*model, error) {
	var all []*model
	byPkg := map[string]*model{}
	for _, p := range packages {
		m, err := read(dir, p.file)
		if err != nil {
			return nil, err
		}
		m.file, m.pkg, m.used = p.file, p.pkg, map[string]*model{}
		for _, pkg := range slices.Sorted(maps.Keys(m.Uses)) {
			from := byPkg[pkg]
			if from == nil {
				return nil, fmt.Errorf("%s uses package %s, which does not come before it", p.file, pkg)
			}
			for _, name := range m.Uses[pkg] {
				if from.Shapes[name] == nil {
					return nil, fmt.Errorf("%s uses %s.%s, which does not exist", p.file, pkg, name)
				}
				if m.Shapes[name] != nil {
					return nil, fmt.Errorf("%s declares and uses %s", p.file, name)
				}
				m.used[name] = from
			}
		}
		byPkg[p.pkg] = m
		all = append(all, m)
	}
	return all, nil
}

// read merges a model with its overlay, if it has one, and decodes the result
// strictly: a key that nothing reads is a mistake in the data.
func read(dir, file string) (*model, error) {
	text, err := os.ReadFile(filepath.Join(dir, file+".json"))
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	var base map[string]any
	if err := json.Unmarshal(text, &base); err != nil {
		return nil, fmt.Errorf("parse %s.json: %w", file, err)
	}
	over, err := os.ReadFile(filepath.Join(dir, "overlay", file+".json"))
	switch {
	case os.IsNotExist(err):
	case err != nil:
		return nil, fmt.Errorf("read overlay: %w", err)
	default:
		var o map[string]any
		if err := json.Unmarshal(over, &o); err != nil {
			return nil, fmt.Errorf("parse overlay/%s.json: %w", file, err)
		}
		if err := checkOverlay(base, o); err != nil {
			return nil, fmt.Errorf("overlay/%s.json: %w", file, err)
		}
		merge(base, o)
	}
	merged, err := json.Marshal(base)
	if err != nil {
		return nil, fmt.Errorf("merge %s.json: %w", file, err)
	}
	dec := json.NewDecoder(bytes.NewReader(merged))
	dec.DisallowUnknownFields()
	m := &model{sum: checksum(text, over)}
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("decode %s.json: %w", file, err)
	}
	return m, nil
}

// checkOverlay refuses an overlay that speaks of members or operations the
// model does not have: a misspelt name would otherwise protect nothing.
func checkOverlay(base, over map[string]any) error {
	object := func(m map[string]any, key string) map[string]any {
		o, _ := m[key].(map[string]any)
		return o
	}
	for name := range object(over, "operations") {
		if object(base, "operations")[name] == nil {
			return fmt.Errorf("no operation %s", name)
		}
	}
	for name, s := range object(over, "shapes") {
		have := object(object(base, "shapes"), name)
		if have == nil {
			if object(object(over, "shapes"), name)["type"] == nil {
				return fmt.Errorf("no shape %s", name)
			}
			continue // a shape of the overlay's own
		}
		for mem := range object(s.(map[string]any), "members") {
			if object(have, "members")[mem] == nil {
				return fmt.Errorf("shape %s has no member %s", name, mem)
			}
		}
	}
	return nil
}

// merge lays over upon base: objects member by member, null removes, anything
// else replaces.
func merge(base, over map[string]any) {
	for k, v := range over {
		if v == nil {
			delete(base, k)
			continue
		}
		b, bok := base[k].(map[string]any)
		o, ook := v.(map[string]any)
		if bok && ook {
			merge(b, o)
			continue
		}
		base[k] = v
	}
}
