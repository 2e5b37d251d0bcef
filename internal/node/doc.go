// Package node is a running pogod. It opens the rooms from the bottom up, joins them, shows
// them to the admin endpoint, and puts them away again from the top down.
//
//	serve.go        Serve and the start: what is opened in which order, and who gets whom
//	clustered.go    the same as a member of a cluster
//	stop.go         how it leaves; departure.go: how it is taken out of the cluster
//	outlast.go      what it does when its disk fails; rebuilding.go: what it shows meanwhile
//	phphosts.go     what a PHP host is told; dispatch.go, websocket.go: pools, the hub
//	reconfigure.go  goes over to another configuration; supervised.go: what systemd is told
//	status.go       /status; queues.go, clock.go, disk.go, adminaccess.go, backup.go: the rest
//	                of what the admin endpoint shows and does
package node
