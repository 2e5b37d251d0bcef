package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Key is a key of the configuration that is built.
type Key struct {
	Table   string `json:"table"` // as "[node]"; "[queue]" stands for "[queue.NAME]" too
	Name    string `json:"key"`
	Type    string `json:"type"`    // as "duration", "list of strings"
	Default string `json:"default"` // as it would be written in the file, or in words
	Bounds  string `json:"bounds"`  // "" where the type says all
	Env     string `json:"env"`     // the variable that goes over the file; "" when there is none
	Meaning string `json:"meaning"` // one line; unit of numbers
	Effect  Effect `json:"effect"`  // when a change of it counts in a running node
}

// about is what Keys cannot read off the code that decodes a key. def is empty when
// the default depends on nothing.
type about struct{ table, key, def, bounds, meaning string }

const (
	noDefault  = "none"
	aPath      = "a path"
	anAddress  = "host:port"
	byteSize   = `as "256M"; -1: no limit`
	byThreads  = "4, in development mode 2"
	nameOf     = "1 to 128 bytes without space or /"
	envMeaning = "added to $_SERVER and getenv()"
)

// abouts has every built key once, in the order of the documentation.
var abouts = []about{
	{"[node]", "data_dir", "", aPath, "all that the node stores"},
	{"[node]", "socket", `"pogod.sock" in data_dir`, fmt.Sprintf("a path of at most %d bytes", MaxSocketPath), "the unix socket that PHP and the command line connect to"},
	{"[node]", "mode", `"production", without a file "development"`, `"development" or "production"`, "what other defaults are made for, and whether changed code is noticed"},
	{"[node]", "log_level", "", `"debug", "info", "warn" or "error"`, "the least that the log takes"},
	{"[node]", "log_format", "", `"text" or "json"`, "how lines of the log are written"},
	{"[node]", "shutdown_timeout", "", shutdownBounds.String(), "how long jobs and requests may go on after SIGTERM; 0s interrupts them"},
	{"[node]", "push_timeout", "", pushBounds.String(), "how long a push waits for its commit"},
	{"[node]", "min_free_bytes", "", "bytes; 0: no floor", "how much must be free on the disk of data_dir for pushes to be taken; below it they answer 5 while this node leads"},

	{"[php]", "app", "", "a directory", "the application's root and PHP's working directory"},
	{"[php]", "memory_limit", "that of php.ini", byteSize, "PHP's memory_limit, in bytes"},
	{"[php]", "extension_dir", "PHP's own", "a directory", "where PHP looks for the extensions of php.ini"},
	{"[php]", "kill_grace", "", graceBounds.String(), "how long a job may be stuck in C before its old PHP host is killed"},
	{"[php]", "watch", "", "", "in development mode: a changed PHP file reloads the hosts"},
	{"[php]", "ini", noDefault, "values of one line", "settings over php.ini"},

	{"[web]", "listen", "", anAddress + "; port 0: a free one", "the application's web server"},
	{"[web]", "root", `"public" in app`, "a directory in app", "what the web may see"},
	{"[web]", "index", "", "a file in root", "the script for every path that is no file"},
	{"[web]", "worker", noDefault, "a PHP file in app", "worker mode: the script that is started once and answers every path that is no file"},
	{"[web]", "threads", "twice the processors, at least 4", pageThreads.String(), "PHP threads for pages; in worker mode each runs the worker"},
	{"[web]", "access_log", `"off", in development mode "log"`, `"off", "log" or a path`, "a line for each request, in the node's log or a file of JSON"},
	{"[web]", "tls", noDefault, "cert and key, PEM files, both or none", "serves over TLS; the files are read again when they change"},
	{"[web]", "trusted_proxies", noDefault, "addresses and networks, none twice", "who is believed what X-Forwarded-* headers say of the client"},

	{"[queue]", "auto_create", "false, without a file true", "", "in [queue] alone: a push to a queue that is not declared makes it"},
	{"[queue]", "max_payload_bytes", "", fmt.Sprintf("1 to %d", MaxPayloadBytes), "the largest payload of a job, in bytes"},
	{"[queue]", "visibility_timeout", "", attemptTime.String(), "the hard limit of an attempt"},
	{"[queue]", "max_attempts", "", attemptBounds.String(), "attempts before a job is failed; 0: unlimited"},
	{"[queue]", "max_crashes", "", attemptBounds.String(), "ends of its PHP host by a job alone before it is failed; 0: unlimited"},
	{"[queue]", "backoff", "", fmt.Sprintf("at most %d of %s", maxBackoff, backoffTime), "the wait before the 2nd, the 3rd and later attempts; []: none"},
	{"[queue]", "max_messages", "", countBounds.String(), "ready, delayed and reserved jobs; 0: unlimited"},
	{"[queue]", "max_bytes", "", countBounds.String(), "bytes of their payloads; 0: unlimited"},

	{"[[worker]]", "name", "", nameOf + "; unique", "what it is called in status and logs"},
	{"[[worker]]", "script", `"queue-worker.php" in app`, "a PHP file", "what handles the jobs"},
	{"[[worker]]", "queues", "", "at least one, none twice", "the queues that it takes jobs from, the most urgent first"},
	{"[[worker]]", "threads", byThreads, workerThreads.String(), "jobs at once on this node; 0: threads come from the php command line"},
	{"[[worker]]", "env", noDefault, "", envMeaning},
	{"[[worker]]", "host", "", nameOf + `; not "web"`, "the PHP host that runs it, a process of its own for each name"},
	{"[[worker]]", "max_jobs", "", attemptBounds.String(), "jobs before the script is told to end and started again; 0: no bound"},
	{"[[worker]]", "memory_limit", "that of the host", byteSize, "PHP's memory_limit of this script, in bytes"},
	{"[[worker]]", "ini", noDefault, "what can change while PHP runs", "settings of this script"},

	{"[[pool]]", "name", "", nameOf + "; unique", "what pogo_dispatch calls it"},
	{"[[pool]]", "script", `"dispatch-worker.php" in app`, "a PHP file", "what runs the jobs"},
	{"[[pool]]", "threads", byThreads, workerThreads.String(), "jobs at once on this node; 0: threads come from the php command line"},
	{"[[pool]]", "max_wait", "", poolWait.String(), "the longest that a job waits for a thread"},
	{"[[pool]]", "env", noDefault, "", envMeaning},
	{"[[pool]]", "host", "", nameOf + `; not "web"`, "the PHP host that runs it; one of its own keeps it apart from crashes of jobs"},
	{"[[pool]]", "memory_limit", "that of the host", byteSize, "PHP's memory_limit of this script, in bytes"},
	{"[[pool]]", "ini", noDefault, "what can change while PHP runs", "settings of this script"},

	{"[websocket]", "listen", "", anAddress + "; port 0: a free one", "sockets of browsers, once there is a [[websocket.app]]"},
	{"[websocket]", "ping", "", pingTime.String(), "how long a client may be silent before it is asked for a sign of life"},
	{"[websocket]", "max_event_bytes", "", eventBounds.String(), "the largest data of an event from PHP, in bytes"},
	{"[websocket]", "max_pending_bytes", "", pendingBounds.String(), "bytes of events that wait to be written; half of it on one share of the sockets"},
	{"[websocket]", "max_connections", "", connectionBounds.String(), "sockets; 0: as many as the process may have descriptors, less a reserve"},

	{appTable, "id", noDefault, nameOf + "; unique", "what PHP names the application by"},
	{appTable, "key", noDefault, nameOf + "; unique", "what clients name it by; no secret"},
	{appTable, "secret", noDefault, "1 to 1024 bytes", "signs subscriptions to private channels"},
	{appTable, "allowed_origins", "every one", "hosts, as \"example.org\", \"*.example.org\" or \"*\"", "whose pages may connect"},

	{"[admin]", "listen", "", anAddress + "; port 0: a free one", "health, status, metrics and the API; not on loopback it wants tls and tokens"},
	{"[admin]", "tls", noDefault, "cert and key, PEM files, both or none", "serves over TLS; the files are read again when they change"},
	{"[admin]", "tokens", noDefault, "name, role and hash of each, no name twice", "who may ask, as \"pogod admin token\" prints it; without one, whoever can connect"},

	{"[cluster]", "listen", "", anAddress + "; port 0: a free one", "where the other nodes connect to, once the node is in a cluster"},
	{"[cluster]", "advertise", "listen", anAddress + " that others can reach", "the address by which the other nodes reach this one"},
	{"[cluster]", "join", noDefault, "addresses, none twice", "more addresses to look for members at"},
}

// String writes bounds as the documentation has them.
func (b bounds) String() string {
	if b.most == countBounds.most {
		return fmt.Sprintf("%d to 2^60", b.least)
	}
	return fmt.Sprintf("%d to %d", b.least, b.most)
}

// String writes bounds as the documentation has them.
func (s stretch) String() string { return short(s.least) + " to " + short(s.most) }

// Keys returns every key that is built, in the order of the documentation.
func Keys() []Key {
	built := builtKeys()
	all := make([]Key, 0, len(abouts))
	for _, a := range abouts {
		f := built[a.table][a.key]
		k := Key{Table: a.table, Name: a.key, Type: f.typ, Default: a.def, Bounds: a.bounds, Meaning: a.meaning, Effect: effect(a.table, a.key)}
		if f.get != nil && k.Default == "" {
			k.Default = TOML(plainly(f.get()))
		}
		if !strings.HasPrefix(a.table, "[[") {
			k.Env = variable(a.table, a.key, f)
		}
		all = append(all, k)
	}
	return all
}

// builtKeys are the keys that are decoded, by their tables, with their defaults.
func builtKeys() map[string]fields {
	w, p := newWorker(), newPool()
	built := map[string]fields{"[[worker]]": workerFields(&w), "[[pool]]": poolFields(&p), appTable: websocketAppFields(&WebsocketApp{})}
	for _, t := range tables(defaults(true)) {
		built[t.name] = t.keys
	}
	for _, keys := range built {
		maps.DeleteFunc(keys, func(_ string, f field) bool { return f.set == nil })
	}
	return built
}

// TOML writes a Setting's value as the file would have it, on one line, with $${ for
// ${.
func TOML(v any) string {
	switch v := v.(type) {
	case string:
		return quoted(v)
	case []string:
		list := make([]string, 0, len(v))
		for _, s := range v {
			list = append(list, quoted(s))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case []map[string]string:
		list := make([]string, 0, len(v))
		for _, m := range v {
			list = append(list, TOML(m))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case map[string]string:
		if len(v) == 0 {
			return "{}"
		}
		var list []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			list = append(list, keyText(name)+" = "+quoted(v[name]))
		}
		return "{ " + strings.Join(list, ", ") + " }"
	}
	return fmt.Sprint(v)
}

// quoted is literal for a value, in which ${ would stand for a variable.
func quoted(s string) string { return literal(strings.ReplaceAll(s, "${", "$${")) }

// keyText writes a key of TOML, which needs no quotes when it is a plain word.
func keyText(s string) string {
	word := func(r rune) bool {
		return r == '_' || r == '-' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !word(r) }) {
		return literal(s)
	}
	return s
}

// literal writes a basic string of TOML.
func literal(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r >= 0x7f && r < 0xa0: // a terminal would take them for commands
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// TableHeader writes the header of a Setting's table as the file would have it: the
// name of a queue may need quotes.
func TableHeader(table string) string {
	name, ok := strings.CutPrefix(table, "[queue.")
	if !ok {
		return table
	}
	return "[queue." + keyText(strings.TrimSuffix(name, "]")) + "]"
}
