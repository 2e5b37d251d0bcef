<?php

/**
 * The functions of the pogo extension, for editors and static analysis. This file is never loaded at run time.
 *
 * Codes of the queue: 0 queue full, 1 accepted, 2 no node is reachable, 3 payload too large, 4 the node shuts down (pushes only),
 * 5 failed, 6 queue unknown.
 *
 * Codes of the WebSocket functions: 0 published, 1 no such application, 2 channel too long, 3 event too long, 4 data too
 * large, 5 data is not JSON, 6 no node is reachable or it leaves, 7 the list of channels is no JSON list of strings,
 * 8 the hub's queue is full, 9 a shard's queue is full.
 */

/**
 * Pushes a job. It is durable once the answer is there.
 *
 * @param string $payload      UTF-8, of at most the queue's max_payload_bytes
 * @param int    $delaySeconds 0 to ten years
 *
 * @return string JSON: {"ok":true,"id":"1763849472123-57","code":1}, or {"ok":false,"code":0|2|3|4|5|6,"message":"..."}
 *
 * @throws ValueError for a delay out of bounds
 */
function pogo_queue_push(string $queue, string $payload, int $delaySeconds = 0): string {}

/**
 * Ends a delivery well: its job is done.
 *
 * @param string $deliveryId the delivery's id, not the job's
 *
 * @return int 1, 2, or 5: a lost lease, an unknown id, or settled otherwise already
 */
function pogo_queue_ack(string $queue, string $deliveryId): int {}

/**
 * Puts a delivery's job back; after max_attempts it becomes failed instead.
 *
 * @param int $delaySeconds 0 to ten years
 *
 * @return int 1, 2 or 5, as pogo_queue_ack
 *
 * @throws ValueError for a delay out of bounds
 */
function pogo_queue_release(string $queue, string $deliveryId, int $delaySeconds = 0): int {}

/**
 * Makes a delivery's job a failed one.
 *
 * @param string $reason up to 8 KiB of it are kept
 *
 * @return int 1, 2 or 5, as pogo_queue_ack
 */
function pogo_queue_fail(string $queue, string $deliveryId, string $reason = ''): int {}

/**
 * Depths and counters of a queue, or of all.
 *
 * @param string|null $queue null or '' for all
 *
 * @return string JSON: {"ready":true,"queues":[{"queue":"mail","pending":0,"delayed":0,"reserved":0,"failed":0,...}]}
 */
function pogo_queue_status(?string $queue = null): string {}

/**
 * Pushes to the queue "default".
 *
 * @return int a code, 0 to 6
 */
function pogo_queue(string $data): int {}

/**
 * Lists failed jobs, the newest first.
 *
 * @param int $limit is taken between 1 and 1000
 *
 * @return string JSON: {"ok":true,"queue":"mail","failed":[{"id":"...","queue":"mail","original_id":"...","payload":"...",
 *                "reason":"...","failed_at":0,"attempts":3,"output":"..."}],"code":1}, or {"ok":false,"code":2|5|6,"message":"..."}
 */
function pogo_queue_failed(string $queue, int $limit = 100): string {}

/**
 * Makes a fresh job of a failed one.
 *
 * @return string JSON: {"ok":true,"id":"...","code":1}, or {"ok":false,"code":0|2|5|6,"message":"..."}
 */
function pogo_queue_retry_failed(string $queue, string $failedId): string {}

/**
 * Removes one failed job.
 *
 * @return string JSON: {"ok":true,"count":1,"code":1}, or {"ok":false,"code":2|5|6,"message":"..."}
 */
function pogo_queue_forget_failed(string $queue, string $failedId): string {}

/**
 * Removes all failed jobs of a queue.
 *
 * @return string JSON: {"ok":true,"count":0,"code":1}, or {"ok":false,"code":2|5|6,"message":"..."}
 */
function pogo_queue_purge_failed(string $queue): string {}

/**
 * Takes the next job of the first of the queues that has one. It belongs to this connection until it is settled.
 *
 * @param list<string> $queues 1 to 64 queues, the most urgent first
 * @param float        $wait   seconds, 0 to a day
 *
 * @return string JSON: {"id":"1763849472123-57:58","queue":"mail","payload":"...","attempts":1,"job":"1763849472123-57"}, or null
 *
 * @throws ValueError for no queue, too many, one that is not declared, or a wait out of bounds
 * @throws TypeError  for a name that is no string
 */
function pogo_queue_reserve(array $queues, float $wait = 0.0): string {}

/**
 * Gives a job to a pool of threads of this node, and returns at once. It is cancelled if nobody awaits it.
 *
 * @param string               $class what the pool's script makes and runs
 * @param array<string, mixed> $args  go to it as JSON
 *
 * @return int a handle for pogo_await
 *
 * @throws RuntimeException for an empty class, arguments that are no JSON or too large, an unknown pool, no node, or too many handles
 */
function pogo_dispatch(string $class, array $args = [], string $pool = 'default'): int {}

/**
 * Waits for the result of a dispatched job. It consumes the handle.
 *
 * @param float $timeout seconds, after which the job is cancelled
 *
 * @return mixed the result; objects are arrays
 *
 * @throws RuntimeException for an unknown handle, the time-out, or a job that went wrong
 */
function pogo_await(int $handle, float $timeout = 5.0): mixed {}

/**
 * The threads of a pool.
 *
 * @throws RuntimeException for an unknown pool, or no node
 */
function pogo_pool_size(string $pool = 'default'): int {}

/**
 * Another name of pogo_dispatch.
 *
 * @param array<string, mixed> $args
 *
 * @throws RuntimeException as pogo_dispatch
 */
function pogo_spawn(string $class, array $args = [], string $pool = 'default'): int {}

/**
 * Publishes an event to the sockets of this node that have subscribed to a channel.
 *
 * @param string $channel at most 256 characters
 * @param string $event   at most 200 characters
 * @param string $data    JSON, at most [websocket] max_event_bytes; clients get it as a string
 *
 * @return int a code of the WebSocket functions
 */
function pogo_websocket_publish(string $appId, string $channel, string $event, string $data): int {}

/**
 * Publishes an event to several channels, or, with a code other than 0, to none.
 *
 * @param string $channels a JSON list of channel names
 *
 * @return int a code of the WebSocket functions
 */
function pogo_websocket_broadcast_multi(string $appId, string $channels, string $event, string $data): int {}

/**
 * Publishes an event to several channels, or, with a code other than 0, to none.
 *
 * @param list<string>           $channels
 * @param array{except?: string} $options  except: the id of a socket that does not get it
 *
 * @return int a code of the WebSocket functions
 *
 * @throws ValueError for an unknown option
 * @throws TypeError  for a channel or a socket id that is no string
 */
function pogo_websocket_publish_with(string $appId, array $channels, string $event, string $data, array $options): int {}

/**
 * In a worker's or a pool's script: waits for the next job and gives its JSON message to the callable.
 *
 * @param callable(string): mixed $callback
 *
 * @return bool false: the script is to end
 *
 * @throws RuntimeException on the command line without POGO_WORKER or POGO_POOL
 */
function frankenphp_handle_request(callable $callback): bool {}
