package admin

import (
	"fmt"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// Backups is what the endpoint needs to hand out backups. A Source that has it is one.
type Backups interface {
	// Backup begins a backup of the state, of exactly size bytes. Whoever reads it closes
	// it.
	Backup() (r io.ReadCloser, size int64, err error)
}

// BackupPath is where a backup is asked for, with POST; a node that is part of no cluster
// has one, too.
const BackupPath = "/api/v1/cluster/backup"

// maxBackups are read at once: the data file grows while one is.
const maxBackups = 2

func (s *Server) backup(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) {
		return
	}
	if s.reading.Add(1) > maxBackups {
		s.reading.Add(-1)
		ctx.Response.Header.Set("Retry-After", "10")
		problem(ctx, fasthttp.StatusServiceUnavailable, fmt.Sprintf("not now: %d backups are under way already; ask again when one is done", maxBackups), nil)
		return
	}
	r, size, err := s.backups.Backup()
	if err != nil {
		s.reading.Add(-1)
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	conn := ctx.Conn()
	ctx.SetContentType("application/octet-stream")
	ctx.SetConnectionClose()
	ctx.SetBodyStream(&backupStream{
		r: r, extend: func() error { return conn.SetWriteDeadline(time.Now().Add(writeTimeout)) },
		end: func() { s.reading.Add(-1) },
	}, int(size))
}

// backupStream is a backup as fasthttp sends it: the whole of it may take longer than
// writeTimeout, no part of it.
type backupStream struct {
	r      io.ReadCloser
	extend func() error
	end    func()
}

// Read implements io.Reader.
func (b *backupStream) Read(p []byte) (int, error) {
	if err := b.extend(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

// WriteTo implements io.WriterTo: fasthttp would read little at once.
func (b *backupStream) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{b}, make([]byte, 64<<10))
}

// Close implements io.Closer: fasthttp calls it once, whatever becomes of the answer.
func (b *backupStream) Close() error {
	defer b.end()
	return b.r.Close()
}
