package node

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"pogod/internal/admin"
	"pogod/internal/config"
	"pogod/internal/link"
	"pogod/internal/phpwatch"
	"pogod/workers"
)

// openWeb opens the web listener.
func (n *node) openWeb() (err error) {
	if err = webCertificate(n.cfg); err != nil {
		return err
	}
	if n.web, err = bind(n.cfg.Web.Listen, "[web] listen"); err != nil {
		return err
	}
	n.webFile, err = n.web.File()
	return err
}

// hosts says what the PHP hosts of a configuration run: pages in one, on the web listener,
// jobs in others, by default in one, so that a job's crash kills no page.
func hosts(cfg *config.Config, webFile *os.File) (hosts []workers.Host) {
	web := link.HostSpec{
		Name: "web", Socket: cfg.Node.Socket, App: cfg.PHP.App, Ini: ini(cfg, pageIni(cfg)),
		Web: &link.WebSpec{
			Root: cfg.Web.Root, Index: cfg.Web.Index, Worker: cfg.Web.Worker, Threads: cfg.Web.Threads, AccessLog: accessLog(cfg.Web),
			TrustedProxies: cfg.Web.Proxies(), Cert: cfg.Web.TLS.Cert, Key: cfg.Web.TLS.Key,
		},
	}
	hosts = []workers.Host{{Spec: web, Listener: webFile}}
	add := func(host string, w link.WorkerSpec) {
		if w.Threads == 0 {
			return // its threads come from outside
		}
		i := slices.IndexFunc(hosts, func(h workers.Host) bool { return h.Spec.Name == host })
		if i < 0 {
			i = len(hosts)
			hosts = append(hosts, workers.Host{Spec: link.HostSpec{Name: host, Socket: cfg.Node.Socket, App: cfg.PHP.App, Ini: ini(cfg, map[string]string{"max_execution_time": "0"})}})
		}
		jobs := &hosts[i].Spec
		for _, other := range jobs.Jobs { // slots are those of one host
			w.FirstSlot += other.Threads
		}
		jobs.Jobs = append(jobs.Jobs, w)
	}
	for _, w := range cfg.Workers {
		add(w.Host, link.WorkerSpec{Name: w.Name, Script: w.Script, Threads: w.Threads, Env: w.Env, Ini: scriptIni(w.Ini, w.MemoryLimit)})
	}
	for _, p := range cfg.Pools {
		add(p.Host, link.WorkerSpec{Name: p.Name, Script: p.Script, Threads: p.Threads, Env: p.Env, Ini: scriptIni(p.Ini, p.MemoryLimit), Dispatch: true})
	}
	return append(hosts, workers.QuarantineHosts(hosts)...)
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

// pageIni is pogod's defaults for pages alone. Errors are in the log, and in production not
// in the page.
func pageIni(cfg *config.Config) map[string]string {
	own := map[string]string{"max_execution_time": "30", "log_errors": "1"}
	if cfg.Node.Mode == config.ModeProduction {
		own["display_errors"] = "0"
	}
	return own
}

// ini is what a host sets over php.ini: pogod's defaults, own among them, and the
// configuration over them.
func ini(cfg *config.Config, own map[string]string) map[string]string {
	all := map[string]string{"post_max_size": "64M", "upload_max_filesize": "32M"}
	maps.Copy(all, own)
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
	if !s.n.build.PHP {
		return admin.ErrNoPHP
	}
	if err := s.n.hosts.Reload(ctx); err != nil {
		s.n.log.Error("reload", "error", err)
		return err
	}
	s.n.log.Info("the PHP hosts were reloaded")
	return nil
}

// reloads reads the configuration again on SIGHUP, and reloads the hosts when a PHP file of
// the application changes, until life ends.
func (n *node) reloads(life context.Context) {
	n.background.Go(func() { // ended by life
		changed, stop := n.watchFiles(life)
		defer func() { stop() }()
		for {
			bounded, cancel := context.WithTimeout(life, reloadWithin)
			select {
			case <-n.hangups:
				n.reloadOnHangup(bounded)
			case file := <-changed:
				n.log.Info("a PHP file has changed: new PHP hosts are started", "file", file)
				_ = source{n}.Reload(bounded) // likewise
			case <-n.rewatch:
				stop()
				changed, stop = n.watchFiles(life)
			case <-life.Done():
				cancel()
				return
			}
			cancel()
		}
	})
}

// watchFiles tells of changed PHP files until stop or the end of life, if that is wanted;
// otherwise it returns nil, on which nothing ever comes.
func (n *node) watchFiles(life context.Context) (changed <-chan string, stop func()) {
	cfg := n.now.Load()
	if !n.build.PHP || cfg.Node.Mode != config.ModeDevelopment || !cfg.PHP.Watch {
		return nil, func() {}
	}
	w, err := phpwatch.New(cfg.PHP.App, n.log)
	if err != nil {
		n.log.Warn("PHP files are not watched: reload with pogod php reload, or set [php] watch = false", "error", err)
		return nil, func() {}
	}
	life, stop = context.WithCancel(life)
	n.background.Go(func() { w.Run(life) }) // ended by stop
	return w.Changed(), stop
}
