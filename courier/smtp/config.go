package smtp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// TLSMode says how a connection is protected.
type TLSMode string

// The modes of TLS.
const (
	TLSOff           TLSMode = "off"           // never
	TLSOpportunistic TLSMode = "opportunistic" // STARTTLS when offered, certificate not checked, in the clear otherwise
	TLSRequired      TLSMode = "required"      // STARTTLS with a valid certificate, or nothing is sent
	TLSImplicit      TLSMode = "implicit"      // TLS from the first byte (port 465) with a valid certificate
)

// Secret is a password. It refuses to print.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Config is everything a [Client] can be told.
type Config struct {
	// Addr is the relay, host:port. It has no default.
	Addr string
	// Name is the host name we give in EHLO; empty means the machine's own name.
	Name string
	// TLS is the protection; empty means required when Username is set and
	// opportunistic otherwise.
	TLS TLSMode
	// TLSConfig holds roots and client certificates; nil means the system's
	// roots. An empty ServerName means the host of Addr.
	TLSConfig *tls.Config `json:"-"`
	// Username is for AUTH; empty means no AUTH.
	Username string
	// Password goes with Username.
	Password Secret
	// Mechanism is PLAIN, LOGIN or SCRAM-SHA-256; empty means the strongest
	// of them that the server offers.
	Mechanism string
	// InsecureAuth allows AUTH where TLS is off or opportunistic; false
	// refuses such a configuration.
	InsecureAuth bool
	// Connections is the most connections open at once, 1 to 256; zero means 4.
	Connections int
	// MessagesPerConnection is how many messages a connection carries before
	// it is closed; zero means 1000.
	MessagesPerConnection int
	// NoPipelining speaks one command at a time even to a server that offers
	// PIPELINING, for relays that offer it and fail at it; false pipelines.
	NoPipelining bool
	// Idle is how long an unused connection is kept; zero means 30 s.
	Idle time.Duration
	// Drain is how long messages under way may take once Run was told to end;
	// zero means 30 s.
	Drain time.Duration
	// Timeouts bound each stage.
	Timeouts Timeouts
}

// Timeouts bound the stages of a conversation. The defaults are the least that
// RFC 5321 4.5.3.2 asks for; a relay in the same building deserves less.
type Timeouts struct {
	Connect   time.Duration // TCP and TLS handshakes; zero means 30 s
	Greeting  time.Duration // the server's first reply; zero means 5 min
	Command   time.Duration // replies to EHLO, AUTH, MAIL, RCPT and RSET; zero means 5 min
	DataInit  time.Duration // the 354 after DATA; zero means 2 min
	DataBlock time.Duration // each write of at most 64 KiB; zero means 3 min
	DataEnd   time.Duration // the reply to the final dot; zero means 10 min
}

// withDefaults fills in what is zero and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil || host == "" || port == "" {
		return c, fmt.Errorf("smtp: Addr %q is not host:port", c.Addr)
	}
	if c.Name == "" {
		c.Name = "localhost"
		if h, err := os.Hostname(); err == nil && validHello(h) {
			c.Name = h
		}
	}
	if !validHello(c.Name) {
		return c, fmt.Errorf("smtp: Name %q is neither a host name nor an address literal", c.Name)
	}
	if c.TLS == "" {
		c.TLS = TLSOpportunistic
		if c.Username != "" {
			c.TLS = TLSRequired
		}
	}
	switch c.TLS {
	case TLSOff, TLSOpportunistic:
		if c.Username != "" && !c.InsecureAuth {
			return c, fmt.Errorf("smtp: a Username with TLS %q needs InsecureAuth, for anyone on the way could read the password", c.TLS)
		}
	case TLSRequired, TLSImplicit:
	default:
		return c, fmt.Errorf("smtp: TLS %q is none of off, opportunistic, required, implicit", c.TLS)
	}
	c.Mechanism = strings.ToUpper(c.Mechanism)
	switch c.Mechanism {
	case "", mechanismPlain, mechanismLogin, mechanismScram:
	default:
		return c, fmt.Errorf("smtp: Mechanism %q is none of PLAIN, LOGIN, SCRAM-SHA-256", c.Mechanism)
	}
	if strings.ContainsAny(c.Username, "\x00\r\n") || strings.ContainsAny(string(c.Password), "\x00\r\n") {
		return c, errors.New("smtp: Username and Password cannot hold NUL, CR or LF")
	}
	if c.Connections < 0 || c.Connections > 256 {
		return c, fmt.Errorf("smtp: Connections %d is not within 0 to 256", c.Connections)
	}
	if c.MessagesPerConnection < 0 {
		return c, fmt.Errorf("smtp: MessagesPerConnection %d is negative", c.MessagesPerConnection)
	}
	c.Connections = positive(c.Connections, 4)
	c.MessagesPerConnection = positive(c.MessagesPerConnection, 1000)

	t := &c.Timeouts
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"Idle", &c.Idle, 30 * time.Second},
		{"Drain", &c.Drain, 30 * time.Second},
		{"Timeouts.Connect", &t.Connect, 30 * time.Second},
		{"Timeouts.Greeting", &t.Greeting, 5 * time.Minute},
		{"Timeouts.Command", &t.Command, 5 * time.Minute},
		{"Timeouts.DataInit", &t.DataInit, 2 * time.Minute},
		{"Timeouts.DataBlock", &t.DataBlock, 3 * time.Minute},
		{"Timeouts.DataEnd", &t.DataEnd, 10 * time.Minute},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("smtp: %s %v is negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	return c, nil
}

func positive(n, zero int) int {
	if n == 0 {
		return zero
	}
	return n
}

// tlsConfig is the configuration for one handshake.
func (c *Config) tlsConfig() *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSConfig != nil {
		t = c.TLSConfig.Clone()
	}
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.Addr)
	}
	if c.TLS == TLSOpportunistic {
		// Encryption without authentication still defeats whoever only
		// listens, and the alternative here is no encryption. RFC 7435.
		t.InsecureSkipVerify = true
	}
	return t
}
