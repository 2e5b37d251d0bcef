//go:build php

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// result is what a load found.
type result struct {
	Requests int           `json:"requests"`
	Bytes    int           `json:"bytes"` // of one answer's body
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// load asks for a page over connections that are kept, one request after the other on
// each, for a while, and prints a result. Every answer must be as the first.
func load(addr, path string, connections int, lasting time.Duration) error {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n")
	took := make([][]time.Duration, connections)
	sizes, errs := make([]int, connections), make([]error, connections)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() { took[i], sizes[i], errs[i] = one(addr, request, begin.Add(lasting)) })
	}
	all.Wait()
	r := result{Took: time.Since(begin), Bytes: sizes[0]}
	var each []time.Duration
	for i, t := range took {
		if errs[i] != nil {
			return errs[i]
		}
		if sizes[i] != r.Bytes {
			return fmt.Errorf("answers of %d and %d bytes", sizes[i], r.Bytes)
		}
		each = append(each, t...)
	}
	slices.Sort(each)
	r.Requests, r.P50, r.P99 = len(each), each[len(each)/2], each[len(each)*99/100]
	return json.NewEncoder(os.Stdout).Encode(r)
}

// one is one connection of load.
func one(addr string, request []byte, until time.Time) (took []time.Duration, size int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = c.Close() }()
	in := bufio.NewReaderSize(c, 32<<10)
	var res fasthttp.Response
	for now := time.Now(); now.Before(until) || len(took) == 0; {
		if _, err := c.Write(request); err != nil {
			return nil, 0, err
		}
		if err := res.Read(in); err != nil {
			return nil, 0, err
		}
		if n := len(res.Body()); res.StatusCode() != fasthttp.StatusOK || size != 0 && n != size || n == 0 {
			return nil, 0, fmt.Errorf("status %d, %d bytes, before %d: %.200s", res.StatusCode(), n, size, res.Body())
		}
		size = len(res.Body())
		end := time.Now()
		took = append(took, end.Sub(now))
		now = end
	}
	return took, size, nil
}
