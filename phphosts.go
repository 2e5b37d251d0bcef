package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"pogod/internal/admin"
	"pogod/internal/config"
	"pogod/internal/link"
	"pogod/internal/phpwatch"
	"pogod/workers"
)

// phpHosts opens the web listener and says what the hosts run: pages in one, jobs in
// others, by default in one, so that a job's crash kills no page.
func (n *node) phpHosts() (hosts []workers.Host, err error) {
	certificate := n.cfg.Web.TLS
	if certificate != (config.TLS{}) { // each web host loads it
		if _, err := tls.LoadX509KeyPair(certificate.Cert, certificate.Key); err != nil {
			return nil, fmt.Errorf("[web] tls: no certificate and its key in %s and %s: %w", certificate.Cert, certificate.Key, err)
		}
	}
	if n.web, err = bind(n.cfg.Web.Listen, "[web] listen"); err != nil {
		return nil, err
	}
	if n.webFile, err = n.web.File(); err != nil {
		return nil, err
	}
	web := link.HostSpec{
		Name: "web", Socket: n.cfg.Node.Socket, App: n.cfg.PHP.App, Ini: ini(n.cfg, "30"),
		Web: &link.WebSpec{
			Root: n.cfg.Web.Root, Index: n.cfg.Web.Index, Threads: n.cfg.Web.Threads, AccessLog: accessLog(n.cfg.Web),
			TrustedProxies: n.cfg.Web.Proxies(), Cert: certificate.Cert, Key: certificate.Key,
		},
	}
	hosts = []workers.Host{{Spec: web, Listener: n.webFile}}
	add := func(host string, w link.WorkerSpec) {
		if w.Threads == 0 {
			return // its threads come from outside
		}
		i := slices.IndexFunc(hosts, func(h workers.Host) bool { return h.Spec.Name == host })
		if i < 0 {
			i = len(hosts)
			hosts = append(hosts, workers.Host{Spec: link.HostSpec{Name: host, Socket: n.cfg.Node.Socket, App: n.cfg.PHP.App, Ini: ini(n.cfg, "0")}})
		}
		jobs := &hosts[i].Spec
		for _, other := range jobs.Jobs { // slots are those of one host
			w.FirstSlot += other.Threads
		}
		jobs.Jobs = append(jobs.Jobs, w)
	}
	for _, w := range n.cfg.Workers {
		add(w.Host, link.WorkerSpec{Name: w.Name, Script: w.Script, Threads: w.Threads, Env: w.Env, Ini: scriptIni(w.Ini, w.MemoryLimit)})
	}
	for _, p := range n.cfg.Pools {
		add(p.Host, link.WorkerSpec{Name: p.Name, Script: p.Script, Threads: p.Threads, Env: p.Env, Ini: scriptIni(p.Ini, p.MemoryLimit), Dispatch: true})
	}
	return append(hosts, workers.QuarantineHosts(hosts)...), nil
}

// accessLog is where the web host notes requests.
func accessLog(w config.Web) string {
	switch w.AccessLog {
	case config.AccessOff:
		return ""
	case config.AccessLog:
		return link.AccessToNode
	}
	return w.AccessLog
}

// ini is what a host sets over php.ini: pogod's defaults, and the configuration over them.
func ini(cfg *config.Config, maxExecutionTime string) map[string]string {
	all := map[string]string{"post_max_size": "64M", "upload_max_filesize": "32M", "max_execution_time": maxExecutionTime}
	if cfg.PHP.MemoryLimit != "" {
		all["memory_limit"] = cfg.PHP.MemoryLimit
	}
	if cfg.PHP.ExtensionDir != "" {
		all["extension_dir"] = cfg.PHP.ExtensionDir
	}
	maps.Copy(all, cfg.PHP.Ini)
	return all
}

// scriptIni is what the script of a worker or a pool sets over its host.
func scriptIni(ini map[string]string, memoryLimit string) map[string]string {
	all := maps.Clone(ini)
	if memoryLimit != "" {
		if all == nil {
			all = map[string]string{}
		}
		all["memory_limit"] = memoryLimit
	}
	return all
}

// reloadWithin bounds a reload that nobody waits for.
const reloadWithin = 2 * time.Minute

// Reload implements admin.Reloader.
func (s source) Reload(ctx context.Context) error {
	if !hasPHP {
		return admin.ErrNoPHP
	}
	if err := s.n.hosts.Reload(ctx); err != nil {
		s.n.log.Error("reload", "error", err)
		return err
	}
	s.n.log.Info("the PHP hosts were reloaded")
	return nil
}

// reloads reloads the hosts on SIGHUP, and when a PHP file of the application changes, until
// life ends.
func (n *node) reloads(life context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	changed := n.watchFiles(life)
	n.background.Go(func() { // ended by life
		defer signal.Stop(hup)
		for {
			select {
			case <-hup:
				n.log.Info("SIGHUP: new PHP hosts are started")
			case file := <-changed:
				n.log.Info("a PHP file has changed: new PHP hosts are started", "file", file)
			case <-life.Done():
				return
			}
			bounded, cancel := context.WithTimeout(life, reloadWithin)
			if err := (source{n}).Reload(bounded); errors.Is(err, admin.ErrNoPHP) {
				n.log.Warn("there is nothing to reload", "error", err)
			}
			cancel()
		}
	})
}

// watchFiles tells of changed PHP files, if that is wanted; otherwise it returns nil, on
// which nothing ever comes.
func (n *node) watchFiles(life context.Context) <-chan string {
	if !hasPHP || n.cfg.Node.Mode != config.ModeDevelopment || !n.cfg.PHP.Watch {
		return nil
	}
	w, err := phpwatch.New(n.cfg.PHP.App, n.log)
	if err != nil {
		n.log.Warn("PHP files are not watched: reload with pogod php reload, or set [php] watch = false", "error", err)
		return nil
	}
	n.background.Go(func() { w.Run(life) }) // ended by life
	return w.Changed()
}
