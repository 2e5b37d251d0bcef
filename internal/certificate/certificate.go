// Package certificate serves TLS from files that may change: a renewal needs no restart.
package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often the files of a certificate are looked at, when clients come.
const lookEvery = time.Second

// Certificate is a certificate and its key in two PEM files, which are loaded again when
// they have changed. While they make no sense, the last that did is used.
type Certificate struct {
	what, cert, key string
	log             *slog.Logger
	every           time.Duration

	mu     sync.Mutex // guards the rest
	loaded *tls.Certificate
	looked time.Time
	seen   [2]os.FileInfo // of cert and key, before they were loaded, with success or not
}

// Load loads the certificate of a server, which what names in the log, as "the web server".
func Load(what, cert, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{what: what, cert: cert, key: key, log: log, every: lookEvery}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.loadLocked()
	return c, err
}

// Get is a tls.Config's GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= c.every {
		switch changed, err := c.loadLocked(); {
		case err != nil && changed:
			c.log.Error("the certificate of "+c.what+" has changed and cannot be used: the one from before stays", "cert", c.cert, "key", c.key, "error", err)
		case changed:
			c.log.Info("the certificate of "+c.what+" has changed", "cert", c.cert)
		}
	}
	return c.loaded, nil
}

// loadLocked loads the files if they are not those that were seen, and says whether they
// are not. mu is held.
func (c *Certificate) loadLocked() (changed bool, err error) {
	c.looked = time.Now()
	var now [2]os.FileInfo
	var certErr, keyErr error
	now[0], certErr = os.Stat(c.cert)
	now[1], keyErr = os.Stat(c.key)
	changed = !same(now[0], c.seen[0]) || !same(now[1], c.seen[1])
	c.seen = now
	if err := errors.Join(certErr, keyErr); err != nil || !changed {
		return changed, err
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return true, fmt.Errorf("%s and %s: %w", c.cert, c.key, err)
	}
	c.loaded = &pair
	return true, nil
}

// same tells whether a file, or none, is as it was.
func same(now, then os.FileInfo) bool {
	if now == nil || then == nil {
		return now == nil && then == nil
	}
	return os.SameFile(now, then) && now.ModTime().Equal(then.ModTime()) && now.Size() == then.Size()
}
