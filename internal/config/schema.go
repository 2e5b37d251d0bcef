package config

import (
	"maps"
	"slices"
)

// field is a known key: the type of its value, which value it has, and how one is
// taken, all of which are empty when its part is not built yet.
type field struct {
	typ string // as Key.Type
	get func() any
	set func(*decoder, string, *value) error
}

// Types that a variable of the environment can be of, beside those that are written in
// quotes.
const (
	typeString  = "string"
	typeInteger = "integer"
	typeBoolean = "boolean"
)

// fields are the known keys of one table.
type fields map[string]field

// inert adds keys whose part is not built yet.
func (f fields) inert(keys ...string) fields {
	for _, k := range keys {
		f[k] = field{}
	}
	return f
}

// The sections, each with the keys that are built, which take their value, and
// those that are not.

func nodeFields(n *Node) fields {
	return fields{
		"data_dir":         text(&n.DataDir, checkPath),
		"socket":           text(&n.Socket, checkPath),
		"mode":             text(&n.Mode, oneOf(ModeDevelopment, ModeProduction)),
		"log_level":        text(&n.LogLevel, logLevel),
		"log_format":       text(&n.LogFormat, logFormat),
		"shutdown_timeout": duration(&n.ShutdownTimeout, shutdownBounds.check),
		"push_timeout":     duration(&n.PushTimeout, pushBounds.check),
		"min_free_bytes":   integer(&n.MinFreeBytes, countBounds.check),
	}.inert("id")
}

func phpFields(p *PHP) fields {
	return fields{
		"ini":           ini(p.Ini),
		"app":           text(&p.App, checkPath),
		"memory_limit":  memory(&p.MemoryLimit),
		"extension_dir": text(&p.ExtensionDir, checkPath),
		"kill_grace":    duration(&p.KillGrace, graceBounds.check),
		"watch":         boolean(&p.Watch),
	}
}

func webFields(w *Web) fields {
	return fields{
		"listen":     text(&w.Listen, checkListen),
		"root":       text(&w.Root, checkPath),
		"index":      text(&w.Index, checkIndex),
		"threads":    integer(&w.Threads, pageThreads.check),
		"access_log": text(&w.AccessLog, checkAccessLog),

		"trusted_proxies": texts(&w.TrustedProxies, `["10.0.0.0/8", "192.0.2.7"]`, checkProxies),
		"tls":             certificate(&w.TLS),
		"worker":          text(&w.Worker, checkPath),
	}
}

// queueFields are the keys of [queue.NAME], and, with "auto_create", those of
// [queue] that are no tables.
func queueFields(q *Queue) fields {
	return fields{
		"max_payload_bytes":  integer(&q.MaxPayloadBytes, checkPayloadBytes),
		"visibility_timeout": duration(&q.VisibilityTimeout, attemptTime.check),
		"max_attempts":       integer(&q.MaxAttempts, attemptBounds.check),
		"max_crashes":        integer(&q.MaxCrashes, attemptBounds.check),
		"backoff":            durations(&q.Backoff, maxBackoff, backoffTime.check),
		"max_messages":       integer(&q.MaxMessages, countBounds.check),
		"max_bytes":          integer(&q.MaxBytes, countBounds.check),
	}.inert("retain_failed", "max_failed", "retain_completed", "concurrency", "rate")
}

func workerFields(w *Worker) fields {
	return fields{
		"name":         text(&w.Name, CheckName),
		"script":       text(&w.Script, checkPath),
		"queues":       texts(&w.Queues, `["high", "default"]`, checkQueues),
		"threads":      integer(&w.Threads, workerThreads.check),
		"env":          environment(w.Env),
		"host":         text(&w.Host, checkHost),
		"max_jobs":     integer(&w.MaxJobs, attemptBounds.check),
		"memory_limit": memory(&w.MemoryLimit),
		"ini":          workerIni(w.Ini),
	}
}

func poolFields(p *Pool) fields {
	return fields{
		"name":     text(&p.Name, CheckName),
		"script":   text(&p.Script, checkPath),
		"threads":  integer(&p.Threads, workerThreads.check),
		"max_wait": duration(&p.MaxWait, poolWait.check),
		"env":      environment(p.Env),
		"host":     text(&p.Host, checkHost),

		"memory_limit": memory(&p.MemoryLimit),
		"ini":          workerIni(p.Ini),
	}
}

func adminFields(a *Admin) fields {
	return fields{
		"listen": text(&a.Listen, checkListen),
		"tls":    certificate(&a.TLS),
		"tokens": adminTokens(&a.Tokens),
	}.inert("dashboard")
}

func clusterFields(c *Cluster) fields {
	return fields{
		"listen":    text(&c.Listen, checkListen),
		"advertise": text(&c.Advertise, CheckAddress),
		"join":      texts(&c.Join, `["node1:8083"]`, checkJoin),
	}.inert("bootstrap_expect", "tls")
}

// section is a top-level table.
type section struct {
	list bool   // [[name]] rather than [name]
	keys fields // of a section that is not built yet: its keys; nil for one that is
}

// sections are all top-level tables. Those without keys here are decoded by
// decoder.document; the others are not built yet.
var sections = map[string]section{
	"node":    {},
	"php":     {},
	"web":     {},
	"queue":   {},
	"worker":  {list: true},
	"admin":   {},
	"cluster": {},
	"pool":    {list: true},
	"schedule": {list: true, keys: fields{}.inert("name", "cron", "every", "at", "timezone", "queue", "payload",
		"script", "worker", "command", "overlap", "catch_up", "jitter", "timeout", "retries")},
	"websocket": {},
}

// header writes a section's name as the file has it.
func header(name string) string {
	if sections[name].list {
		return "[[" + name + "]]"
	}
	return "[" + name + "]"
}

// owners names the sections that have a key, for the message about one that
// stands in the wrong place.
func owners(key string) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		keys := sections[name].keys
		switch name {
		case "node":
			keys = nodeFields(&Node{})
		case "php":
			keys = phpFields(&PHP{})
		case "web":
			keys = webFields(&Web{})
		case "queue":
			keys = queueFields(&Queue{}).inert("auto_create")
		case "worker":
			keys = workerFields(&Worker{})
		case "pool":
			keys = poolFields(&Pool{})
		case "admin":
			keys = adminFields(&Admin{})
		case "websocket":
			keys = websocketFields(&Websocket{})
		case "cluster":
			keys = clusterFields(&Cluster{})
		}
		if _, ok := keys[key]; ok {
			found = append(found, header(name))
		}
	}
	return found
}
