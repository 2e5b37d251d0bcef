package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disk is where both sides keep their data.
type disk struct {
	f      *os.File
	device string // "254 0", as in /proc/diskstats
}

func newDisk(dir string) (*disk, error) {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, err
	}
	major := st.Dev >> 8 & 0xfff
	minor := st.Dev&0xff | st.Dev>>12&0xfff00
	return &disk{f, fmt.Sprintf("%d %d", major, minor)}, nil
}

func (d *disk) close() { _ = d.f.Close() }

// probe appends and syncs 4 KiB, one after the other, and returns the median in microseconds.
func (d *disk) probe() (float64, error) { return d.median(1000, 0) }

// paced is what one such sync takes when the last one was a while ago, as in the wake-ups: disks and processors doze.
func (d *disk) paced() (float64, error) { return d.median(40, wakeEvery) }

func (d *disk) median(n int, pause time.Duration) (float64, error) {
	block := make([]byte, 4096)
	took := make([]time.Duration, n)
	for i := range took {
		time.Sleep(pause)
		begin := time.Now()
		if _, err := d.f.Write(block); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(d.f.Fd())); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return float64(took[len(took)/2]) / float64(time.Microsecond), nil
}

// flushes returns how often the device was told to flush its cache, by whomever; 0 where the kernel does not count it.
// It merges flushes that are asked for at the same time.
func (d *disk) flushes() float64 {
	raw, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) > 18 && f[0]+" "+f[1] == d.device {
			n, _ := strconv.ParseFloat(f[18], 64)
			return n
		}
	}
	return 0
}
