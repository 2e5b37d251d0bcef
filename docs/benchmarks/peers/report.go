package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// sample is what one measurement gave.
type sample struct {
	round int
	side  string
	work  *work
	probe float64 // of the disk before it, in microseconds
	paced float64 // the same with pauses, before a wake-up; else 0
	loadResult
	cpu     []float64 // seconds, of each node, the leader's first
	flushes float64   // of the disk's cache, all nodes together
	entries float64   // of the log
}

func (s *sample) rate() float64    { return float64(s.Ops) / s.Seconds }
func (s *sample) each() float64    { return 1e6 / float64(max(s.Ops, 1)) } // of seconds: microseconds for each operation
func (s *sample) servers() float64 { return sum(s.cpu) * s.each() }
func (s *sample) client() float64  { return s.CPU * s.each() }

// flushed returns the disk's flushes for each operation.
func (s *sample) flushed() float64 { return s.flushes / float64(max(s.Ops, 1)) }

// batch returns how many operations share an entry of the log.
func (s *sample) batch() float64 {
	if s.entries <= 0 {
		return math.NaN()
	}
	return float64(s.Ops) / s.entries
}

// key names a round of a work.
func (s *sample) key() string { return fmt.Sprint(s.work.name, " #", s.round) }

func sum(all []float64) (n float64) {
	for _, v := range all {
		n += v
	}
	return n
}

// report collects the samples of a run.
type report struct {
	nodes   int
	samples []*sample
}

// about prints what runs where.
func (r *report) about(ctx context.Context, o *options) {
	first := func(name string, arg ...string) string {
		out, err := exec.CommandContext(ctx, name, arg...).Output()
		if err != nil {
			return err.Error()
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	fmt.Printf("# machine=%d cores, Linux %s\n", runtime.NumCPU(), first("uname", "-r"))
	fmt.Printf("# pogod=%s\n", first(o.pogod, "version"))
	if o.nats != "" {
		fmt.Printf("# nats=%s: JetStream, file store, %d replicas, sync_interval: always\n", first(o.nats, "-v"), r.nodes)
	}
	fmt.Printf("# nodes=%d on one machine and one disk, payload=%d bytes, each measurement %s after %s of warming up\n", r.nodes, payloadBytes, o.seconds, warmFor)
}

// add takes a sample and prints it as a line.
func (r *report) add(s *sample) {
	r.samples = append(r.samples, s)
	fmt.Printf("round=%d side=%s work=%q probe_us=%.0f paced_probe_us=%.0f ops=%d seconds=%.2f ops_per_s=%.0f p50_us=%.0f p99_us=%.0f p999_us=%.0f "+
		"client_cpu_s=%.2f nodes_cpu_s=%.2f flushes=%.0f entries=%.0f\n",
		s.round, s.side, s.work.name, s.probe, s.paced, s.Ops, s.Seconds, s.rate(), s.P50, s.P99, s.P999, s.CPU, s.cpu, s.flushes, s.entries)
}

// moved is how far the disk may be from its median in a good round.
const moved = .25

// print prints the tables.
func (r *report) print(w io.Writer) {
	probes := each(r.samples, func(s *sample) float64 { return s.probe })
	fmt.Fprintf(w, "\nThe disk, 4 KiB append + fdatasync, before each measurement: %s us.", spread(probes))
	fmt.Fprintf(w, " Two of them + 1 ms are %s.\n", duration(2*median(probes)+1000))
	if paced := slices.DeleteFunc(each(r.samples, func(s *sample) float64 { return s.paced }), func(us float64) bool { return us == 0 }); len(paced) > 0 {
		fmt.Fprintf(w, "One every %s, as in the wake-ups: %s us. Three of them + 3 ms are %s.\n", wakeEvery, spread(paced), duration(3*median(paced)+3000))
	}
	r.discard(w)

	r.table(w, []string{"", "pogod/s", "NATS/s", "ratio", "pogod p50, p99, p99.9", "NATS p50, p99, p99.9"}, func(p *pair) []string {
		if p.work.kind == kindIdle || p.work.kind == kindWake {
			return nil
		}
		rate, answered := (*sample).rate, latency(p.nats)
		if p.work.plain {
			answered = "-"
		}
		return []string{spread(each(p.pogod, rate)), spread(each(p.nats, rate)), p.ratio(rate), latency(p.pogod), answered}
	})
	r.table(w, []string{"from before the push to the handler", "NATS p50 / pogod p50", "pogod p50, p99, p99.9", "NATS p50, p99, p99.9"}, func(p *pair) []string {
		if p.work.kind != kindWake {
			return nil
		}
		return []string{p.ratio(func(s *sample) float64 { return 1 / s.P50 }), latency(p.pogod), latency(p.nats)}
	})
	r.table(w, []string{"for each job", "pogod: CPU of all nodes + client", "NATS", "pogod: disk flushes", "NATS", "pogod: jobs a log entry", "NATS"}, func(p *pair) []string {
		if p.work.kind == kindIdle || p.work.kind == kindWake {
			return nil
		}
		cost := func(all []*sample) string {
			return number(each(all, (*sample).servers)) + " + " + number(each(all, (*sample).client)) + " us"
		}
		flushed, batch := (*sample).flushed, (*sample).batch
		return []string{
			cost(p.pogod), cost(p.nats), number(each(p.pogod, flushed)), number(each(p.nats, flushed)),
			number(each(p.pogod, batch)), number(each(p.nats, batch)),
		}
	})
	r.table(w, []string{"CPU of an idle node, of one core", "pogod: the leader", "a follower", "NATS: a node"}, func(p *pair) []string {
		if p.work.kind != kindIdle {
			return nil
		}
		share := func(f func(cpu []float64) float64) func(*sample) float64 {
			return func(s *sample) float64 { return 100 * f(s.cpu) / s.Seconds }
		}
		percent := func(all []*sample, f func(cpu []float64) float64) string {
			return number(each(all, share(f))) + "%"
		}
		leader := func(cpu []float64) float64 { return cpu[0] }
		follower := func(cpu []float64) float64 { return sum(cpu[1:]) / float64(len(cpu)-1) }
		node := func(cpu []float64) float64 { return sum(cpu) / float64(len(cpu)) }
		return []string{percent(p.pogod, leader), percent(p.pogod, follower), percent(p.nats, node)}
	})
}

// discard throws away the rounds of a work in which the disk was not as in its others.
func (r *report) discard(w io.Writer) {
	byWork := map[string][]float64{}
	for _, s := range r.samples {
		byWork[s.work.name] = append(byWork[s.work.name], s.probe)
	}
	bad := map[string]bool{}
	for _, s := range r.samples {
		if mid := median(byWork[s.work.name]); math.Abs(s.probe-mid) > moved*mid {
			fmt.Fprintf(w, "Thrown away: round %d of %q, because the disk was at %.0f us before %s, and at %.0f us in the middle.\n",
				s.round, s.work.name, s.probe, s.side, mid)
			bad[s.key()] = true
		}
	}
	r.samples = slices.DeleteFunc(r.samples, func(s *sample) bool { return bad[s.key()] })
}

// pair is what both sides did of one work.
type pair struct {
	work        *work
	pogod, nats []*sample
}

// ratio shows pogod's f over that of NATS, round by round.
func (p *pair) ratio(f func(*sample) float64) string {
	var all []float64
	for _, a := range p.pogod {
		for _, b := range p.nats {
			if a.round == b.round {
				all = append(all, f(a)/f(b))
			}
		}
	}
	if len(all) == 0 {
		return "-"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f x (%.2f to %.2f)", median(all), all[0], all[len(all)-1])
}

// table prints a row for each work for which row has cells.
func (r *report) table(w io.Writer, head []string, row func(p *pair) []string) {
	begun := false
	done := map[string]bool{}
	for _, s := range r.samples {
		if done[s.work.name] {
			continue
		}
		done[s.work.name] = true
		p := &pair{work: s.work}
		for _, t := range r.samples {
			switch {
			case t.side == "nats" && t.work.name == s.work.name:
				p.nats = append(p.nats, t)
			case t.side == "pogod" && (t.work.name == s.work.name || t.work.name == s.work.beside):
				p.pogod = append(p.pogod, t)
			}
		}
		cells := row(p)
		if cells == nil {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(w, "\n| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
		}
		fmt.Fprintf(w, "| %s | %s |\n", s.work.name, strings.Join(cells, " | "))
	}
}

func each(all []*sample, f func(*sample) float64) []float64 {
	out := make([]float64, len(all))
	for i, s := range all {
		out[i] = f(s)
	}
	return out
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// spread shows the median, the lowest and the highest.
func spread(all []float64) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f (%.0f to %.0f)", median(all), slices.Min(all), slices.Max(all))
}

// number shows the median.
func number(all []float64) string {
	switch m := median(all); {
	case math.IsNaN(m):
		return "-"
	case m >= 10:
		return fmt.Sprintf("%.0f", m)
	default:
		return fmt.Sprintf("%.2g", m)
	}
}

// latency shows the medians of the percentiles.
func latency(all []*sample) string {
	if len(all) == 0 {
		return "-"
	}
	at := func(f func(*sample) float64) string { return duration(median(each(all, f))) }
	return at(func(s *sample) float64 { return s.P50 }) + ", " +
		at(func(s *sample) float64 { return s.P99 }) + ", " + at(func(s *sample) float64 { return s.P999 })
}

// duration shows microseconds.
func duration(us float64) string {
	if us < 1000 {
		return fmt.Sprintf("%.0f us", us)
	}
	return fmt.Sprintf("%.3g ms", us/1000)
}
