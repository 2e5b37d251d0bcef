// Package cli is the command line of pogod:
//
//	pogod serve      the server
//	pogod status     what a running node does
//	pogod queue      what is in the queues of a running node, and what to do with
//	                 it: ls, show, peek, failed, push, retry, forget, purge, pause,
//	                 resume, clear, delete, drain
//	pogod admin      token, which makes one for the admin endpoint
//	pogod cluster    init and join, which make a data directory a member's; token
//	                 and members, which ask a running node
//	pogod config     check, show and docs: a configuration, without a node
//	pogod php        becomes the php command line; reload and status are of a
//	                 running node's PHP hosts
//	pogod version    how this binary was made
//	pogod php-host   a PHP host, which the server starts for itself; hidden
//
// It parses arguments, reads the configuration, prints, and maps errors to exit
// codes; what the server does comes in through Deps. An error is one line on
// stderr, which says what to do (one of the configuration is followed by the
// line in question); no failure prints the usage.
//
// Exit codes are stable:
//
//	0  done
//	1  failed
//	2  usage: an unknown command or flag, or a bad value of one
//	3  no node is reachable, or none at the address to join at
package cli
