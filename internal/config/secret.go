package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// secretKeys are the keys whose values are secrets. Each may be given as KEY_file, the path
// of a file that holds it, and is redacted wherever a configuration is shown. What checks
// one must not repeat its value in an error.
var secretKeys = map[string]bool{
	"[[websocket.app]] secret": true,
}

const (
	fileSuffix    = "_file"
	maxSecretFile = 64 << 10 // bytes
)

// secretOf returns the secret key that KEY_file stands for in a table; ok is false for any
// other key.
func secretOf(table, key string) (base string, ok bool) {
	base, ok = strings.CutSuffix(key, fileSuffix)
	return base, ok && secretKeys[table+" "+base]
}

// withSecrets are the known keys of a table, and KEY_file for each secret among them.
func withSecrets(table string, known []string) []string {
	for _, key := range known {
		if secretKeys[table+" "+key] {
			known = append(known, key+fileSuffix)
		}
	}
	return known
}

// secret reads the file that e, which is KEY_file of the key base, names. What it returns
// stands for base = "..." at the same place.
func (d *decoder) secret(name string, t *value, e *entry, base string) (*entry, error) {
	key := name + " " + e.key
	if e.val.kind != kindString {
		return nil, d.wrong(key, e.val, "a path in quotes")
	}
	if t.entry(base) != nil {
		return nil, d.doc.fault(e.at, "%s must not be beside %s: take one out", key, base)
	}
	if err := checkPath(e.val.text); err != nil {
		return nil, d.refuse(key, e.val, err)
	}
	v := &value{kind: kindString, at: e.val.at, text: e.val.text}
	if !d.unset { // else nobody needs it
		text, err := readSecret(resolve(filepath.Dir(d.cfg.File), e.val.text))
		if err != nil {
			return nil, d.refuse(key, e.val, err)
		}
		v.text = text
	}
	return &entry{base, e.at, v}, nil
}

// readSecret returns what a file holds, without the line's end.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("must be a file that can be read, but: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("must be a file that can be read, but: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("must be a file, but %s is none: name another", path)
	case info.Mode().Perm()&0o006 != 0:
		return "", fmt.Errorf("must be a file that not everybody can read or write, but %s has mode %04o: say chmod o= %[1]s", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("must be a file that can be read, but: %w", err)
	case len(b) > maxSecretFile:
		return "", fmt.Errorf("must be a file with a secret, but %s is larger than 64 KiB: name another", path)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" {
		return "", errors.New("must be a file with a secret, but " + path + " is empty")
	}
	return text, nil
}

// secretText finds what a line of the file says a secret is, by the name of the key, in
// quotes that may not be closed.
var secretText = regexp.MustCompile(`(?i)([\w.-]*(?:secret|passw|pwd|token|credential|private|api_?key)[\w.-]*["']?\s*=\s*)(\[?\s*"(?:[^"\\]|\\.)*|\[?\s*'[^']*)`)

// masked hides secrets in a line that is shown with what is wrong in it, character for
// character, so that a caret stays below its text.
func masked(line string) string {
	return secretText.ReplaceAllStringFunc(line, func(s string) string {
		m := secretText.FindStringSubmatch(s)
		if strings.HasSuffix(strings.TrimRight(strings.TrimRight(m[1], "= \t"), `"'`), fileSuffix) {
			return s // a path
		}
		hidden := strings.Map(func(r rune) rune {
			if r == '"' || r == '\'' || r == '[' || r == ' ' || r == '\t' {
				return r
			}
			return '*'
		}, m[2])
		return m[1] + hidden
	})
}
