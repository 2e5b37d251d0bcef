package web

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a last call.
const (
	lastCallQuiet = 50 * time.Millisecond // without a client in the queue: handshakes under way end in it
	lastCallLook  = 5 * time.Millisecond
	lastCallMost  = time.Second
)

// lastCall waits until the clients that are in the listener's queue have been accepted, for
// closing it would reset them, and no server comes after this one. It lets no new client
// into the queue: that one's system tries again a second later, and is refused, or finds
// the next process. It returns early when hurry is closed.
func lastCall(ln net.Listener, hurry <-chan struct{}) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return
	}
	queued, err := refuseNew(tcp)
	if err != nil {
		return // closed already, or no plain TCP
	}
	begin := time.Now()
	for quiet := begin; time.Since(quiet) < lastCallQuiet && time.Since(begin) < lastCallMost; {
		if queued() {
			quiet = time.Now()
		}
		select {
		case <-time.After(lastCallLook):
		case <-hurry:
			return
		}
	}
}

// withoutSyn is a socket filter that drops segments which open a connection (SYN without
// ACK), and lets all others pass. It reads the TCP header.
var withoutSyn = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},                  // the flags
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},               // SYN and ACK
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1}, // SYN alone
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// refuseNew keeps new connections out of a listener's queue, in all processes that share it,
// and returns what tells whether a client is in the queue.
func refuseNew(ln *net.TCPListener) (queued func() bool, err error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	program := &unix.SockFprog{Len: uint16(len(withoutSyn)), Filter: &withoutSyn[0]}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program)
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	return func() bool {
		n := 0
		_ = raw.Control(func(fd uintptr) { // a closed listener has no queue
			n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		})
		return n > 0
	}, nil
}
