package web

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// builtFiles is where build tools put files whose names change with their content.
const builtFiles = "/build/"

// forever is the Cache-Control of builtFiles.
const forever = "public, max-age=31536000, immutable"

// encodings are the siblings that hold a file compressed, the smaller one first.
var encodings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// isSource tells names whose content PHP, here or behind another server, would run, and
// those of such content compressed.
func isSource(name string) bool {
	name = strings.ToLower(name)
	ext := path.Ext(name)
	for ext == ".br" || ext == ".gz" || ext == ".zst" {
		name = strings.TrimSuffix(name, ext)
		ext = path.Ext(name)
	}
	switch {
	case strings.HasPrefix(ext, ".php"), ext == ".phtml", ext == ".phar", ext == ".phps", ext == ".pht":
		return true
	}
	return false
}

// shown tells whether name, which is no dotfile's and no source's, is a regular file or
// leads to one by symbolic links. Where links lead is the application's wish (Laravel's
// storage, which a deployment keeps out of the release), but not to a dotfile or a source.
func (h *Handler) shown(name string) bool {
	full := h.path(name)
	fi, err := os.Lstat(full)
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		if full, err = filepath.EvalSymlinks(full); err != nil {
			return false
		}
		if base := filepath.Base(full); strings.HasPrefix(base, ".") || isSource(base) {
			return false
		}
		fi, err = os.Lstat(full)
	}
	return err == nil && fi.Mode().IsRegular()
}

func (h *Handler) path(name string) string { return filepath.Join(h.root, filepath.FromSlash(name)) }

// file answers with the file name, for which shown is true.
func (h *Handler) file(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "405 this is a file", http.StatusMethodNotAllowed)
		return
	}
	f, fi, err := h.open(name)
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, fs.ErrNotExist) {
			code = http.StatusNotFound
		} else if errors.Is(err, fs.ErrPermission) {
			code = http.StatusForbidden
		}
		http.Error(w, http.StatusText(code), code)
		return
	}
	defer func() { _ = f.Close() }()
	header := w.Header()
	if strings.HasPrefix(name, builtFiles) {
		header.Set("Cache-Control", forever)
	}
	encoding, suffix, negotiated := h.encoding(r, name)
	if negotiated {
		header.Add("Vary", "Accept-Encoding")
	}
	if encoding != "" {
		if c, ci, err := h.open(name + suffix); err == nil { // else it is served as it is
			defer func() { _ = c.Close() }()
			header.Set("Content-Type", contentType(name, f)) // not that of what is compressed
			header.Set("Content-Encoding", encoding)
			// ServeContent leaves it out of what is encoded. Without a range and conditions
			// that may fail, it answers with all of the file, or with 304, from which it
			// takes the length away.
			header.Set("Content-Length", strconv.FormatInt(ci.Size(), 10))
			f, fi = c, ci
		} else {
			encoding = ""
		}
	}
	changed := fi.ModTime()
	if changed.Unix() <= 1 { // a build that erases times: they tell nothing
		changed = time.Time{}
	} else {
		header.Set("Etag", etag(fi, encoding))
	}
	http.ServeContent(w, r, name, changed, f)
}

// open opens a regular file.
func (h *Handler) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.Open(h.path(name))
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// etag is different for each content of a file, and for each of its encodings.
func etag(fi fs.FileInfo, encoding string) string {
	if encoding != "" {
		encoding = "-" + encoding
	}
	return fmt.Sprintf(`"%x-%x%s"`, fi.ModTime().UnixNano(), fi.Size(), encoding)
}

// contentType is what ServeContent would say of f, from which it may read.
func contentType(name string, f io.Reader) string {
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	var begin [512]byte
	n, _ := io.ReadFull(f, begin[:]) // what is there
	return http.DetectContentType(begin[:n])
}

// encoding chooses a sibling of the file name for the client, or "". negotiated tells
// whether there is a choice, which caches must know. Ranges are those of the file itself;
// so are conditions for changing it.
func (h *Handler) encoding(r *http.Request, name string) (encoding, suffix string, negotiated bool) {
	plain := r.Header.Get("Range") != "" || r.Header.Get("If-Match") != "" || r.Header.Get("If-Unmodified-Since") != ""
	best := 0.0
	for _, e := range encodings {
		if !h.shown(name + e.suffix) {
			continue
		}
		negotiated = true
		if q := quality(r.Header.Values("Accept-Encoding"), e.name); !plain && q > best {
			encoding, suffix, best = e.name, e.suffix, q
		}
	}
	return encoding, suffix, negotiated
}

// quality is how much a client wants an encoding, 0 to 1, by its Accept-Encoding. What it
// does not name, it does not want, but for "*".
func quality(accepts []string, encoding string) (q float64) {
	for _, part := range strings.Split(strings.Join(accepts, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "x-gzip" {
			name = "gzip"
		}
		if name != encoding && name != "*" {
			continue
		}
		now := 1.0
		if key, value, ok := strings.Cut(params, "="); ok && strings.EqualFold(strings.TrimSpace(key), "q") {
			now, _ = strconv.ParseFloat(strings.TrimSpace(value), 64) // 0 when it is none
			if !(now > 0 && now <= 1) {
				now = 0
			}
		}
		if name == encoding {
			return now // over "*", wherever that stands
		}
		q = now
	}
	return q
}
