package node

import (
	"fmt"
	"net"

	"pogod/internal/admin"
	"pogod/internal/certificate"
	"pogod/internal/config"
)

// adminAccess is who may ask the admin endpoint, and how it proves itself.
type adminAccess struct {
	bearers []admin.Bearer
	cert    *certificate.Certificate // nil: no TLS
}

// readAccess reads what the configuration says of it; it stores nothing.
func (n *node) readAccess() (a adminAccess, err error) {
	if a.bearers, err = bearers(n.cfg); err != nil {
		return a, err
	}
	if files := n.cfg.Admin.TLS; files != (config.TLS{}) {
		if a.cert, err = certificate.Load("the admin endpoint", files.Cert, files.Key, n.log); err != nil {
			return a, fmt.Errorf("[admin] tls: %w", err)
		}
	}
	return a, nil
}

// bearers are those who have a token.
func bearers(cfg *config.Config) (all []admin.Bearer, err error) {
	for _, t := range cfg.Admin.Tokens {
		b, err := admin.NewBearer(t.Name, t.Role, t.Hash)
		if err != nil {
			return nil, fmt.Errorf("[admin] tokens: %q: %w", t.Name, err)
		}
		all = append(all, b)
	}
	return all, nil
}

// serveAdmin starts the admin endpoint.
func (n *node) serveAdmin(a adminAccess) error {
	ln, err := bind(n.cfg.Admin.Listen, "[admin] listen")
	if err != nil {
		return err
	}
	n.admin = admin.New(ln, source{n}, n.clusterView(), n.log)
	n.admin.SetBearers(a.bearers)
	if a.cert != nil {
		n.admin.Secure(a.cert.Get)
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() && n.cfg.Admin.Insecure {
		n.log.Warn("--insecure: others can reach the admin endpoint", "address", at, "tls", a.cert != nil, "tokens", len(a.bearers))
	}
	go func() { // ended by Shutdown
		if err := n.admin.Serve(); err != nil {
			n.log.Error("the admin endpoint ended", "error", err)
		}
	}()
	return nil
}
