package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smpp"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/door"
	"github.com/everpoint/everpoint/senders/channels"
)

// hearing hands what carriers say later to delivery, which is made after the
// couriers that hear it.
type hearing struct {
	to atomic.Pointer[delivery.Service]
}

var errNotYet = errors.New("node: delivery is not assembled yet")

// Receipt hands a delivery receipt on.
func (h *hearing) Receipt(ctx context.Context, r courier.Receipt) error {
	if d := h.to.Load(); d != nil {
		r.Forms = smpp.NormalizeID(r.ProviderID)
		return d.Receipt(ctx, r)
	}
	return errNotYet
}

// Inbound hands a text from a person on.
func (h *hearing) Inbound(ctx context.Context, in courier.Inbound) error {
	if d := h.to.Load(); d != nil {
		return d.Inbound(ctx, in)
	}
	return errNotYet
}

// couriers makes a courier for each carrier of the configuration, and what has
// to run for them.
func (n *Node) couriers(w World, heard courier.Receiver) (delivery.Routes, []runner, error) {
	routes := delivery.Routes{Text: map[string]courier.Courier{}}
	var run []runner
	if m := n.Config.Mail; m != nil {
		cfg := smtp.Config{
			Addr: m.Addr, Name: m.Name, TLS: smtp.TLSMode(m.TLS), Username: m.Username, Connections: m.Connections,
		}
		password, err := secret(m.PasswordFile)
		if err != nil {
			return routes, nil, err
		}
		cfg.Password = smtp.Secret(password)
		if m.CAFile != "" {
			if cfg.TLSConfig, err = roots(m.CAFile); err != nil {
				return routes, nil, err
			}
		}
		c, err := smtp.New(cfg, smtp.Dialler(w.Dial))
		if err != nil {
			return routes, nil, fmt.Errorf("mail relay: %w", err)
		}
		routes.Mail = c
		run = append(run, runner{"mail relay", c.Run})
	}
	for _, r := range n.Config.Routes {
		password, err := secret(r.PasswordFile)
		if err != nil {
			return routes, nil, err
		}
		cfg := smpp.Config{
			Route: r.Name, Addresses: r.Addresses, SystemID: r.SystemID, Password: smpp.Secret(password),
			Binds: r.Binds, Window: r.Window,
		}
		if r.TLS {
			cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		c, err := smpp.New(cfg, heard, smpp.Dialler(w.Dial), w.chance(), n.log)
		if err != nil {
			return routes, nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		routes.Text[r.Name] = c
		run = append(run, runner{"route " + r.Name, c.Run})
	}
	return routes, run, nil
}

func roots(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// senders are the addresses that mail may come from; nil allows any.
func (c *Config) senders() []string {
	switch {
	case c.Local:
		return nil
	case c.Mail == nil:
		return []string{}
	default:
		return append([]string{}, c.Mail.Senders...)
	}
}

// channels is what the email and SMS channels tell of their speed; nothing of a
// channel without a limit. Numbers do not tell promotional from transactional.
func (c *Config) channels() channels.Config {
	var out channels.Config
	if c.Mail != nil {
		out.EmailPerSecond = c.Mail.EmailPerSecond
	}
	sum := 0.0
	for _, n := range c.Numbers {
		if n.PartsPerSecond == 0 {
			return out
		}
		sum += n.PartsPerSecond
	}
	if sum > 0 {
		out.SMSPromotionalPerSecond = int(min(max(sum, 1), textsPerSecondMax))
		out.SMSTransactionalPerSecond = out.SMSPromotionalPerSecond
	}
	return out
}

// textsPerSecondMax bounds what the SMS channel tells, to what any client reads.
const textsPerSecondMax = 1<<31 - 1

func (c *Config) numbers() []delivery.Number {
	var out []delivery.Number
	for _, n := range c.Numbers {
		out = append(out, delivery.Number{
			Number: n.Number, Type: n.Type, Country: n.Country, PartsPerSecond: n.PartsPerSecond, Route: n.Route,
		})
	}
	return out
}

// imports says where import jobs read.
func (c *Config) imports() (endpoints.ImportConfig, error) {
	out := endpoints.ImportConfig{
		Node: c.Node, BucketDir: c.Import.BucketDir, S3Endpoint: c.Import.S3Endpoint, S3Region: c.Import.S3Region,
	}
	if c.Import.AccessKeyID == "" {
		return out, nil
	}
	key, err := secret(c.Import.SecretFile)
	if err != nil {
		return out, err
	}
	id := c.Import.AccessKeyID
	out.S3Credentials = func(context.Context) (string, string, string, error) { return id, key, "", nil }
	return out, nil
}

// accessKeys are the configuration's keys.
func (c *Config) accessKeys() (*door.StaticKeys, error) {
	var keys []door.StaticKey
	for _, a := range c.Account {
		s, err := secret(a.SecretFile)
		if err != nil {
			return nil, err
		}
		keys = append(keys, door.StaticKey{AccessKeyID: a.AccessKeyID, Secret: sigv4.SecretKey(s), Account: a.ID})
	}
	return door.NewStaticKeys(keys...)
}
