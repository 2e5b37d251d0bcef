package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"pogod/internal/admin"
	"pogod/internal/link"
)

// running asks the node that has the data directory.
func (p *patient) running(ctx context.Context) {
	const check = "node"
	if p.node == 0 {
		p.ok(check, "none runs here: start one with \"pogod serve\"")
		return
	}
	address := p.cfg.Admin.Listen
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		p.warn(check, "give [admin] listen a port: then commands find the node by --config", "process %d runs, and took a free port for its admin endpoint, so it is not asked", p.node)
		return
	}
	body, err := p.Get(ctx, p.cfg.Admin, "/status")
	var st admin.Status
	if err == nil {
		err = json.Unmarshal(body, &st)
	}
	if err != nil {
		p.problem(check, fmt.Sprintf("if the log of process %d does not say why, end it with SIGTERM and start it again", p.node),
			"process %d runs, and its admin endpoint does not tell its status: %v", p.node, err)
		return
	}
	if st.Node.PID != p.node {
		p.problem(check, "look which configuration each was started with", "process %d has the data directory, and at %s answers process %d", p.node, address, st.Node.PID)
		return
	}
	p.status = &st
	if _, err := p.Get(ctx, p.cfg.Admin, "/readyz"); err != nil {
		p.problem(check, "if that stays, look at its log", "process %d is not ready: %v", p.node, err)
	} else {
		p.ok(check, "process %d is ready: node %s, %s, version %s", p.node, st.Node.ID, st.Node.Role, st.Node.Version)
	}
	if st.Raft.Leader == "" {
		p.problem(check, "see that most members run and reach each other: \"pogod cluster members\"", "no leader is known")
	}
	for _, m := range st.Raft.Members {
		if !m.Up {
			p.warn(check, "start it, or look at the network between them", "member %s at %s cannot be reached", m.ID, m.Address)
		}
	}
	if s := st.Storage.Syncs; s.Slow {
		p.warn(check, "a disk of its own, or a faster one; see what else writes to it", "the disk is slow: a sync of the log takes %.0f ms (median of the last %d, the longest %.0f ms)", s.MedianMS, s.Recent, s.LongestMS)
	}
	if len(st.Node.RestartFor) > 0 {
		p.warn(check, "start it again when it suits", "%s changed in the configuration and count at the next start", strings.Join(st.Node.RestartFor, ", "))
	}
	if st.Node.Version != p.Version {
		p.warn(check, "start it again when it suits", "process %d is version %s, and this program %s", p.node, st.Node.Version, p.Version)
	}
	for _, w := range st.Workers {
		if w.LastError != "" && w.Waiting+w.Running < w.Threads {
			p.problem("worker "+w.Name, "mend the script; it is tried again by itself", "%d of %d threads work: %s", w.Waiting+w.Running, w.Threads, w.LastError)
		}
	}
	for _, x := range st.Pools {
		if x.LastError != "" && x.Waiting+x.Running < x.Threads {
			p.problem("pool "+x.Name, "mend the script; it is tried again by itself", "%d of %d threads work: %s", x.Waiting+x.Running, x.Threads, x.LastError)
		}
	}
}

// addresses tries the ports and the socket of a node that is to start here.
func (p *patient) addresses(ctx context.Context) {
	keys := []struct{ key, address string }{{"[admin] listen", p.cfg.Admin.Listen}}
	if p.HasPHP {
		keys = append(keys, struct{ key, address string }{"[web] listen", p.cfg.Web.Listen})
	}
	if _, err := os.Stat(filepath.Join(p.cfg.Node.DataDir, "cluster")); err == nil {
		keys = append(keys, struct{ key, address string }{"[cluster] listen", p.cfg.Cluster.Listen})
	}
	for _, k := range keys {
		ln, err := net.Listen("tcp", k.address)
		switch {
		case err == nil:
			_ = ln.Close() // nobody connected
			if _, port, _ := net.SplitHostPort(k.address); p.node != 0 && port != "0" {
				p.warn(k.key, "reload the configuration, or start the node again", "%s is free: the node that runs listens elsewhere", k.address)
				continue
			}
			p.ok(k.key, "%s is free", k.address)
		case errors.Is(err, unix.EADDRINUSE) && p.node != 0:
			p.ok(k.key, "%s is in use, by the node that runs", k.address)
		case errors.Is(err, unix.EADDRINUSE):
			p.problem(k.key, "end what uses it (\"ss -ltnp\" names it), or choose another address", "%s is in use by another program", k.address)
		case errors.Is(err, unix.EACCES):
			p.problem(k.key, "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or a port from 1024 on behind a proxy", "%s: this user may not listen on a port below 1024", k.address)
		default:
			p.problem(k.key, "choose an address of this machine", "%s cannot be listened on: %v", k.address, err)
		}
	}
	if socket := p.cfg.Node.Socket; p.status != nil { // one that tells no status may not answer here either, for ever
		if c, err := link.Dial(ctx, socket, link.RoleTool, "doctor"); err == nil {
			c.Close()
			p.ok("[node] socket", "%s answers", socket)
		} else {
			p.problem("[node] socket", "start the node again; something has removed the file, or its directory's rights keep this user out", "PHP cannot connect: %v", err)
		}
	}
}
