package door

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificates keeps the certificate of two files and reads it again when they
// change. A pair that cannot be read, such as one that is being replaced, leaves
// the old certificate in use.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	every             time.Duration // between looks at the files

	mu      sync.Mutex
	current *tls.Certificate
	read    [2]stamp // of the files that current came from
	refused [2]stamp // of the files that were last found bad
	looked  time.Time
}

// stamp tells one version of a file from another.
type stamp struct {
	modified time.Time
	bytes    int64
}

func readCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log, every: time.Second, looked: time.Now()}
	stamps, err := c.stamps()
	if err != nil {
		return nil, err
	}
	if err := c.load(stamps); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificates) stamps() (s [2]stamp, err error) {
	for i, name := range [2]string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, fmt.Errorf("read certificate: %w", err)
		}
		s[i] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (c *certificates) load(stamps [2]stamp) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c.current, c.read = &pair, stamps
	return nil
}

// get returns the present certificate. It is a tls.Config's GetCertificate.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < c.every {
		return c.current, nil
	}
	c.looked = time.Now()
	stamps, err := c.stamps()
	if err == nil && stamps != c.read {
		if err = c.load(stamps); err == nil {
			c.log.Info("certificate read again", "file", c.certFile)
		}
	}
	if err != nil && stamps != c.refused {
		c.refused = stamps
		c.log.Error("certificate not readable, the previous one stays in use", "file", c.certFile, "error", err)
	}
	return c.current, nil
}
