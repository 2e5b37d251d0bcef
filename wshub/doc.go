// Package wshub is the WebSocket hub: a Pusher Channels server (protocol 7) for browsers, fed
// by the native functions of PHP. pusher-js and Laravel Echo connect to it unchanged.
//
// A Hub serves a listener (Serve), hands events to the sockets that have subscribed to their
// channels (Publish), and leaves well (Drain, Close). All of it is on one node and in memory:
// an event is for who is connected now.
//
// Every socket belongs to one shard. A shard has two goroutines: one reads from all of its
// sockets by epoll, and is the only one that subscribes, unsubscribes and closes them; the other
// writes the events of all of its channels. DESIGN.md says why.
package wshub
