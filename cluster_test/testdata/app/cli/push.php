<?php
// Calls every function on the command line; the first argument names the queue.
$queue = $argv[1];
echo json_encode([
    'push' => pogo_queue_push($queue, 'from the command line'),
    'binary' => pogo_queue_push($queue, "\xff"),
    'ack' => pogo_queue_ack($queue, '1-1:1'),
    'release' => pogo_queue_release($queue, '1-1:1'),
    'fail' => pogo_queue_fail($queue, '1-1:1'),
    'empty' => [pogo_queue_ack('', '1-1:1'), pogo_queue_ack($queue, ''), pogo_queue_release($queue, ''), pogo_queue_fail('', '')],
    'status' => pogo_queue_status($queue),
    'failed' => pogo_queue_failed($queue),
    'retry' => pogo_queue_retry_failed($queue, '1-1'),
    'forget' => pogo_queue_forget_failed($queue, '1-1'),
    'purge' => pogo_queue_purge_failed($queue),
    'helper' => pogo_queue('by the old helper'),
]), "\n";
