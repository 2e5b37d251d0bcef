package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pogod/internal/config"
)

// phpWithin bounds one call of php.
const phpWithin = 20 * time.Second

// about is the program that has PHP tell of itself.
const about = `echo json_encode(['version' => PHP_VERSION, 'zts' => (bool) PHP_ZTS, 'extensions' => array_map('strtolower', get_loaded_extensions())]);`

func (p *patient) php(ctx context.Context) {
	const check = "PHP"
	if !p.HasPHP || p.PHP == nil {
		p.warn(check, "build one with \"make build\" where pages and workers are to run", "this pogod was built without PHP: it serves the queue alone")
		return
	}
	run := func(args ...string) (string, error) {
		bounded, cancel := context.WithTimeout(ctx, phpWithin)
		defer cancel()
		return p.PHP(bounded, args...)
	}
	out, err := run("-r", about)
	begin := strings.IndexByte(out, '{')
	var v struct {
		Version    string
		ZTS        bool
		Extensions []string
	}
	if err != nil || begin < 0 || json.Unmarshal([]byte(out[begin:strings.LastIndexByte(out, '}')+1]), &v) != nil {
		p.problem(check, "build pogod again with \"make build\", or mend php.ini: \"pogod php -v\" shows it", "the php command line does not run: %v %s", err, line(out))
		return
	}
	has := func(name string) bool {
		for _, e := range v.Extensions {
			if e == name {
				return true
			}
		}
		return false
	}
	switch warning := line(out[:begin]); {
	case !v.ZTS || !has("pogo"):
		p.problem(check, "build pogod again with \"make build\"", "%s on the command line is not the one of this build, or has not its extension", v.Version)
	case warning != "":
		p.warn(check, "mend php.ini, or build the extension for this PHP: make php-ext EXT=\"NAME\"", "%s says at its start: %s", v.Version, warning)
	default:
		p.ok(check, "%s, thread-safe, with %s", v.Version, strings.Join(v.Extensions, " "))
	}
	if p.cfg.Node.Mode == config.ModeProduction && !has("zend opcache") {
		p.warn(check, "build PHP with opcache", "it has no opcache: each request compiles the code anew")
	}
	lint := func(what, script string) {
		if info, err := os.Stat(script); err != nil || !info.Mode().IsRegular() {
			return // the configuration's check has said so
		}
		if out, err := run("-l", script); err != nil {
			p.problem(what, "mend the script", "%s: %s", script, line(strings.TrimPrefix(strings.TrimSpace(out), "PHP ")))
			return
		}
		p.ok(what, "%s can be compiled", script)
	}
	lint("[web] index", filepath.Join(p.cfg.Web.Root, p.cfg.Web.Index))
	for _, w := range p.cfg.Workers {
		if w.Threads > 0 {
			lint("worker "+w.Name, w.Script)
		}
	}
	for _, x := range p.cfg.Pools {
		if x.Threads > 0 {
			lint("pool "+x.Name, x.Script)
		}
	}
	if index := filepath.Join(p.cfg.Web.Root, p.cfg.Web.Index); p.cfg.Web.Index != "" {
		if _, err := os.Stat(index); err != nil {
			p.warn("[web] index", "write it, or name another with [web] index", "there is no %s: a path that is no file has no page", index)
		}
	}
}
