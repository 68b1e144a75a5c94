package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Config is a node's configuration file. Relative paths are below the file's
// own directory. Absent members have the defaults that their comments say.
type Config struct {
	// Node names this node within its Region, for leases and the ledger.
	// Default: the host's name.
	Node string
	// Region is this Region's name, such as us-east-1. Required.
	Region string
	// Dir holds the database (SQLite), the keys and the node's lineage. Required.
	Dir string
	// PostgresURLFile names a file with the URL of the Region's PostgreSQL. Empty
	// means SQLite in Dir.
	PostgresURLFile string
	// KeysDir holds the sealing and hashing keysets, which the nodes of a Region
	// share. Default: keys below Dir.
	KeysDir string

	Door    Door      // where the API is served
	Account []Account // the accounts and their access keys; at least one, the first is the operator's
	Mail    *Mail     // the mail relay; none: mail cannot be sent
	Routes  []Route   // SMS routes by name; none: texts cannot be sent
	Numbers []Number  // origination numbers and sender ids

	Import Import // where import jobs read
	Events Events // where the event stream goes

	Group *Group // the other Regions; none: this Region is alone

	// Admin is host:port on a loopback address, where a page for people shows the
	// group: who is in sync, who sends, how late each Region is. It asks for no
	// credentials. Empty: nowhere.
	Admin string

	// Local lets mail come from any sender address, for trying things out.
	// `everpoint local` sets it.
	Local bool
	// LogLevel is debug, info, warn or error. Default: info.
	LogLevel string
}

// Door says where the API is served.
type Door struct {
	// Listen is host:port. Default: 127.0.0.1:8443.
	Listen string
	// CertFile and KeyFile are the TLS certificate chain and key, PEM.
	CertFile, KeyFile string
	// PlainLoopback serves plain HTTP, on a loopback address only.
	PlainLoopback bool
	// Hosts are additional host names for which signatures are accepted, such as
	// pinpoint.us-east-1.amazonaws.com.
	Hosts []string
	// RegionsAccepted are further Regions that signatures may be scoped to.
	RegionsAccepted []string
	// RequestsMax bounds concurrent requests. Default: 512.
	RequestsMax int
}

// Account is a tenant and an access key of its root.
type Account struct {
	ID          string // 12 digits
	AccessKeyID string // 16 to 128 letters and digits, by custom beginning with AKIA
	SecretFile  string // a file that holds the secret key
}

// Mail is the relay.
type Mail struct {
	Addr         string // host:port
	Name         string // given in EHLO. Default: {Region}.everpoint
	TLS          string // off, opportunistic, required or implicit
	CAFile       string // PEM roots; default: the system's
	Username     string // for AUTH; empty: none
	PasswordFile string // a file with the password
	Connections  int    // default 4
	// Senders are the addresses (news@tea.example) and domains (tea.example) that
	// mail may come from. Empty allows none, unless Local is set.
	Senders []string
	// EmailPerSecond is what the relay can take; the email channel tells it to
	// clients as MessagesPerSecond. It slows nothing down. Default: not told.
	EmailPerSecond int
}

// Route is an SMPP provider.
type Route struct {
	Name         string   // how Numbers name it
	Addresses    []string // host:port, tried in turn
	SystemID     string   // at most 15 characters
	PasswordFile string   // a file with the password, at most 8 characters; empty: none
	Binds        int      // default 2
	Window       int      // default 10
	TLS          bool     // encrypt the connections
}

// Number is an origination identity.
type Number struct {
	Number  string // E.164, short code or sender id
	Type    string // SHORT_CODE, LONG_CODE, TEN_DLC, TOLL_FREE, SENDER_ID, SIMULATOR
	Country string // ISO 3166-1 alpha-2
	// PartsPerSecond limits how fast the number sends. When every number has a
	// limit, the SMS channel tells clients the sum. Default: no limit.
	PartsPerSecond float64
	Route          string // the name of the route that carries it
}

// Import says where import jobs read.
type Import struct {
	BucketDir   string // s3://name/key is BucketDir/name/key
	S3Endpoint  string // an S3-compatible service, https://host; used when BucketDir is empty
	S3Region    string // default: us-east-1
	AccessKeyID string // empty: requests are not signed
	SecretFile  string // a file that holds the secret key
}

// Events says where the event stream goes.
type Events struct {
	Dir     string // files below it; empty: none
	AllApps bool   // also of apps without an event stream
}

// Group is the Regions that hold the same data. They share the hashing keyset:
// copy hashing.json from the first Region's KeysDir before another's first start.
type Group struct {
	// Listen is host:port, where the other Regions pull changes. Required.
	Listen string
	// CAFile, CertFile and KeyFile are PEM, and required: the authority of the
	// Regions' certificates, and of nothing else; and this Region's certificate and
	// key. It names the Region by the URI everpoint://region/{Region}, and the host
	// that the others call.
	CAFile, CertFile, KeyFile string
	// Peers are the other Regions. At least one.
	Peers []Peer
	// Witness votes with the Regions and holds no data; two Regions need one to
	// decide safely. Region is its name.
	Witness *Peer
	// URL is https://host:port where the others reach this Region, as in their
	// Peers. Required when the Regions vote: with a Witness, or when they are three
	// or more.
	URL string
	// NodeURL is https://host:port where the Region's other nodes reach the Listen of
	// this one. Required when the Region has several nodes and votes: one of them at a
	// time speaks for it, and the others ask that one. Default: URL.
	NodeURL string
	// Founder is the voter that makes the group when all are new, the same for all.
	// Default: the first in the order of their names.
	Founder string
	// Together, where nobody votes, has opt-outs, deletions, claims and accepted
	// sends answered after every peer has them on disk: while one cannot be reached,
	// they are refused. Regions that vote always do so for all that are in sync.
	// For Regions of one node: another node would not hear that they are there.
	Together bool
}

// Peer is another Region of the group.
type Peer struct {
	Region string // its name
	URL    string // https://host:port of its Group.Listen
}

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+$`)
)

// configBytesMax bounds a configuration file.
const configBytesMax = 1 << 20

// LoadConfig reads a configuration file. A member that is not known, or a value
// that cannot work, is an error that names it.
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, configBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &Config{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("parse configuration %s: %w", filepath.Base(path), err)
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("find the directory of the configuration: %w", err)
	}
	if err := c.settle(base); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", filepath.Base(path), err)
	}
	return c, nil
}

// settle fills defaults and checks values; base is what paths are relative to.
func (c *Config) settle(base string) error {
	below := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(base, *path)
		}
	}
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("member Node: not given, and the host has no name: %w", err)
		}
		c.Node = host
	}
	if strings.ContainsAny(c.Node, "/\x00 ") || len(c.Node) > 64 {
		return fmt.Errorf("member Node: %q must be at most 64 characters without slash or space", c.Node)
	}
	if !regionPattern.MatchString(c.Region) {
		return fmt.Errorf("member Region: %q is not a Region's name, such as us-east-1", c.Region)
	}
	if c.Dir == "" {
		return errors.New("member Dir: required")
	}
	if c.KeysDir == "" {
		c.KeysDir = filepath.Join(c.Dir, "keys")
	}
	if c.Door.Listen == "" {
		c.Door.Listen = "127.0.0.1:8443"
	}
	if len(c.Account) == 0 {
		return errors.New("member Account: at least one is required")
	}
	for i := range c.Account {
		if !accountPattern.MatchString(c.Account[i].ID) {
			return fmt.Errorf("member Account[%d].ID: %q is not 12 digits", i, c.Account[i].ID)
		}
		below(&c.Account[i].SecretFile)
	}
	routes := map[string]bool{}
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Name == "" || len(r.Addresses) == 0 {
			return fmt.Errorf("member Routes[%d]: Name and Addresses are required", i)
		}
		routes[r.Name] = true
		below(&r.PasswordFile)
	}
	for i, n := range c.Numbers {
		if n.Number == "" || !routes[n.Route] {
			return fmt.Errorf("member Numbers[%d]: Number is required and Route %q must be one of Routes", i, n.Route)
		}
		if n.PartsPerSecond < 0 {
			return fmt.Errorf("member Numbers[%d].PartsPerSecond: %g is below 0", i, n.PartsPerSecond)
		}
	}
	if c.Mail != nil {
		if c.Mail.Addr == "" {
			return errors.New("member Mail.Addr: required")
		}
		if c.Mail.EmailPerSecond < 0 {
			return fmt.Errorf("member Mail.EmailPerSecond: %d is below 0", c.Mail.EmailPerSecond)
		}
		if c.Mail.Name == "" {
			c.Mail.Name = c.Region + ".everpoint"
		}
		below(&c.Mail.PasswordFile)
		below(&c.Mail.CAFile)
	}
	if c.Group != nil {
		if err := c.Group.settle(c.Region); err != nil {
			return err
		}
		for _, p := range []*string{&c.Group.CAFile, &c.Group.CertFile, &c.Group.KeyFile} {
			below(p)
		}
	}
	for _, p := range []*string{
		&c.Dir, &c.KeysDir, &c.PostgresURLFile, &c.Door.CertFile, &c.Door.KeyFile,
		&c.Import.BucketDir, &c.Import.SecretFile, &c.Events.Dir,
	} {
		below(p)
	}
	if c.Admin != "" && !loopback(c.Admin) {
		return fmt.Errorf("member Admin: %q is not an address of this machine alone", c.Admin)
	}
	switch c.LogLevel {
	case "", "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("member LogLevel: %q is not debug, info, warn or error", c.LogLevel)
	}
	return nil
}

func (g *Group) settle(region string) error {
	for _, m := range [][2]string{{"Listen", g.Listen}, {"CAFile", g.CAFile}, {"CertFile", g.CertFile}, {"KeyFile", g.KeyFile}} {
		if m[1] == "" {
			return fmt.Errorf("member Group.%s: required", m[0])
		}
	}
	if len(g.Peers) == 0 {
		return errors.New("member Group.Peers: at least one is required")
	}
	if g.votes() && g.Together {
		return errors.New("member Group.Together: only where the Regions do not vote")
	}
	seen := map[string]bool{region: true}
	if g.Witness != nil {
		if g.Witness.Region == "" || g.Witness.Region == region {
			return fmt.Errorf("member Group.Witness.Region: %q is not a name of its own", g.Witness.Region)
		}
		if !peerURL(g.Witness.URL) {
			return fmt.Errorf("member Group.Witness.URL: %q is not https://host:port", g.Witness.URL)
		}
		seen[g.Witness.Region] = true
	}
	for i, p := range g.Peers {
		if !regionPattern.MatchString(p.Region) || seen[p.Region] {
			return fmt.Errorf("member Group.Peers[%d].Region: %q is not another Region's name, given once", i, p.Region)
		}
		seen[p.Region] = true
		if !peerURL(p.URL) {
			return fmt.Errorf("member Group.Peers[%d].URL: %q is not https://host:port", i, p.URL)
		}
	}
	if g.votes() && !peerURL(g.URL) {
		return fmt.Errorf("member Group.URL: %q is not https://host:port", g.URL)
	}
	if g.NodeURL != "" && !peerURL(g.NodeURL) {
		return fmt.Errorf("member Group.NodeURL: %q is not https://host:port", g.NodeURL)
	}
	if f := g.Founder; f != "" && g.voters(region)[f] == "" {
		return fmt.Errorf("member Group.Founder: %q is neither a Region of the group nor its witness", f)
	}
	return nil
}

// peerURL reports whether a URL may be that of a peer's listener.
func peerURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.Path == ""
}

// votes says whether the Regions decide by majority: two alone cannot.
func (g *Group) votes() bool { return g.Witness != nil || len(g.Peers) > 1 }

// voters are the URLs of all who vote, by name.
func (g *Group) voters(region string) map[string]string {
	all := map[string]string{region: g.URL}
	for _, p := range g.Peers {
		all[p.Region] = p.URL
	}
	if g.Witness != nil {
		all[g.Witness.Region] = g.Witness.URL
	}
	return all
}

// secret reads a one-line secret file.
func secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
