package endpoints

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// KindEndpoint and KindUser are the rows this room owns. Opt-outs travel inside
// the endpoint's record, so its changes are safety data when they touch one.
var (
	KindEndpoint = store.Kind{Name: "endpoint", Rule: changelog.RuleRecord}
	KindUser     = store.Kind{Name: "user", Rule: changelog.RuleRecord}
)

// safely is the kind of a row for a write that another Region must hear of
// first: an opt-out, an opt-in, a deletion, a new import job.
func safely(k store.Kind) store.Kind {
	k.Safety = true
	return k
}

// optingOut is the kind of a row for an opt-out. It is accepted, and marked, also
// when the other Regions cannot hear of it.
func optingOut(k store.Kind) store.Kind {
	k.Safety, k.OptOut = true, true
	return k
}

// Paths of an endpoint's registers; see the package comment.
const (
	pathID             = "Id"
	pathAddress        = "Address"
	pathChannelType    = "ChannelType"
	pathStatus         = "EndpointStatus"
	pathEffectiveDate  = "EffectiveDate"
	pathRequestID      = "RequestId"
	pathCreationDate   = "CreationDate"
	pathUserID         = "User.UserId"
	prefixAttributes   = "Attributes."
	prefixMetrics      = "Metrics."
	prefixDemographic  = "Demographic."
	prefixLocation     = "Location."
	prefixUserAttrs    = "UserAttributes."
	pathLatitude       = "Location.Latitude"
	pathLongitude      = "Location.Longitude"
	statusActive       = "ACTIVE"
	statusInactive     = "INACTIVE"
	appIDBytes         = 16
	cohorts            = 100
	valuesPerNameBound = 4096
)

// Endpoint is an endpoint as evaluation and delivery read it: plain values,
// absent ones empty. Maps are nil when empty.
type Endpoint struct {
	App            string
	ID             string // as first written
	Address        string
	ChannelType    string
	Status         string // ACTIVE or INACTIVE
	EffectiveDate  string
	RequestID      string
	CreationDate   string
	UserID         string
	Demographic    map[string]string // AppVersion, Locale, Make, Model, ModelVersion, Platform, PlatformVersion, Timezone
	Location       map[string]string // City, Country, PostalCode, Region
	Latitude       float64           // meaningful when HasCoordinates
	Longitude      float64
	HasLatitude    bool
	HasLongitude   bool
	HasCoordinates bool // both
	Attributes     map[string][]string
	Metrics        map[string]float64
	UserAttributes map[string][]string // held for a user to come; a user's own are in User
	OptedOut       bool                // an opt-out stands, or there is no address
	UpdatedAt      changelog.Stamp     // the latest stamp in the record
}

// Active reports whether messages may go to the endpoint by its status.
func (e *Endpoint) Active() bool { return e.Status != statusInactive }

// CohortID is the endpoint's cohort, "0" to "99": fixed by app and id, the same
// in every Region, and independent of the hash that divides dispatch.
//
// Source: engagement 2.1, 13.27.
func (e *Endpoint) CohortID() string { return strconv.Itoa(Cohort(e.App, e.ID)) }

// Cohort is the number behind CohortID.
func Cohort(app, endpointID string) int {
	h := fnv.New64a()
	h.Write([]byte("cohort\x00" + app + "\x00" + Fold(endpointID)))
	// FNV's low bits are weak for short inputs; mix before taking the remainder.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return int(x % cohorts)
}

// Fold gives the form in which endpoint ids are compared.
//
// Source: spec README, "endpoint ids".
func Fold(endpointID string) string { return strings.ToLower(endpointID) }

// Blinder makes keyed hashes; *store.Store and *store.Tx do.
type Blinder interface {
	Blind(parts ...string) string
}

// Key is the store key of an endpoint.
func Key(b Blinder, app, endpointID string) string {
	return AppPrefix(app) + b.Blind("endpoint", app, Fold(endpointID))
}

// UserKey is the store key of a user.
func UserKey(b Blinder, app, userID string) string {
	return AppPrefix(app) + b.Blind("user", app, userID)
}

// AppPrefix starts the keys of everything that belongs to an app.
func AppPrefix(app string) string {
	raw, err := hex.DecodeString(app)
	if err != nil || len(raw) != appIDBytes {
		// Not an id that the service gave out; no such app exists, but the key must
		// still be unlike every other.
		return "?" + app + "\x00"
	}
	return string(raw)
}

// AppOfKey is the app id of a key made by Key or UserKey.
func AppOfKey(key string) string {
	if len(key) < appIDBytes {
		return ""
	}
	return hex.EncodeToString([]byte(key[:appIDBytes]))
}

// ByAddress is the index value of the holder of an address on one channel.
func ByAddress(app, channel, address string) store.Index {
	return store.Index{Name: "address", Value: app + "\x00" + channel + "\x00" + address}
}

// ByUser is the index value of a user's endpoints.
func ByUser(app, userID string) store.Index {
	return store.Index{Name: "user", Value: app + "\x00" + userID}
}

// Read turns a stored record into an Endpoint; nil when the record is a
// tombstone.
func Read(app string, body []byte) (*Endpoint, error) {
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return nil, fmt.Errorf("read endpoint: %w", err)
	}
	return FromRecord(app, &r)
}

// FromRecord is Read for a record that is already decoded.
func FromRecord(app string, r *changelog.Record) (*Endpoint, error) {
	if !r.Live() {
		return nil, nil
	}
	e := &Endpoint{App: app, Status: statusActive, OptedOut: r.OptOut.Active(), UpdatedAt: r.Latest()}
	for i := range r.Registers {
		g := &r.Registers[i]
		if g.Value == nil {
			continue
		}
		switch path := g.Path; {
		case strings.HasPrefix(path, prefixAttributes):
			values, err := decodeList(g.Value)
			if err != nil {
				return nil, err
			}
			if e.Attributes == nil {
				e.Attributes = map[string][]string{}
			}
			e.Attributes[path[len(prefixAttributes):]] = values
		case strings.HasPrefix(path, prefixUserAttrs):
			values, err := decodeList(g.Value)
			if err != nil {
				return nil, err
			}
			if e.UserAttributes == nil {
				e.UserAttributes = map[string][]string{}
			}
			e.UserAttributes[path[len(prefixUserAttrs):]] = values
		case strings.HasPrefix(path, prefixMetrics):
			v, err := decodeNumber(g.Value)
			if err != nil {
				return nil, err
			}
			if e.Metrics == nil {
				e.Metrics = map[string]float64{}
			}
			e.Metrics[path[len(prefixMetrics):]] = v
		case path == pathLatitude || path == pathLongitude:
			v, err := decodeNumber(g.Value)
			if err != nil {
				return nil, err
			}
			if path == pathLatitude {
				e.Latitude, e.HasLatitude = v, true
			} else {
				e.Longitude, e.HasLongitude = v, true
			}
		case strings.HasPrefix(path, prefixDemographic):
			if e.Demographic == nil {
				e.Demographic = map[string]string{}
			}
			e.Demographic[path[len(prefixDemographic):]] = string(g.Value)
		case strings.HasPrefix(path, prefixLocation):
			if e.Location == nil {
				e.Location = map[string]string{}
			}
			e.Location[path[len(prefixLocation):]] = string(g.Value)
		case path == pathID:
			e.ID = string(g.Value)
		case path == pathAddress:
			e.Address = string(g.Value)
		case path == pathChannelType:
			e.ChannelType = string(g.Value)
		case path == pathStatus:
			e.Status = string(g.Value)
		case path == pathEffectiveDate:
			e.EffectiveDate = string(g.Value)
		case path == pathRequestID:
			e.RequestID = string(g.Value)
		case path == pathCreationDate:
			e.CreationDate = string(g.Value)
		case path == pathUserID:
			e.UserID = string(g.Value)
		}
	}
	e.HasCoordinates = e.HasLatitude && e.HasLongitude
	e.OptedOut = e.OptedOut || e.Address == ""
	return e, nil
}

// User is what is known of a user, whichever endpoints they have.
type User struct {
	App        string
	ID         string
	Attributes map[string][]string
}

// ReadUser turns a stored record into a User; nil when it is a tombstone.
func ReadUser(app string, body []byte) (*User, error) {
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	if !r.Live() {
		return nil, nil
	}
	u := &User{App: app, Attributes: map[string][]string{}}
	if id, ok := r.Get(pathID); ok {
		u.ID = string(id)
	}
	for name, value := range r.Prefix(prefixUserAttrs) {
		values, err := decodeList(value)
		if err != nil {
			return nil, err
		}
		u.Attributes[name] = values
	}
	return u, nil
}

// decodeList reads a list's binary form: count, then each string with its
// length, as varints.
func decodeList(b []byte) ([]string, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > valuesPerNameBound {
		return nil, fmt.Errorf("endpoints: list of %d values is corrupt", n)
	}
	b = b[k:]
	out := make([]string, 0, n)
	for range n {
		l, k := binary.Uvarint(b)
		if k <= 0 || l > uint64(len(b)-k) {
			return nil, fmt.Errorf("endpoints: list is cut short")
		}
		out = append(out, string(b[k:k+int(l)]))
		b = b[k+int(l):]
	}
	return out, nil
}

func encodeNumber(v float64) []byte {
	return binary.BigEndian.AppendUint64(nil, math.Float64bits(v))
}

func decodeNumber(b []byte) (float64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("endpoints: number of %d bytes is corrupt", len(b))
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
}
