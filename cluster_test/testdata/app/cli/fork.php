<?php
// Pushes before a fork, and from parent and child after it; the first argument names the queue.
$before = pogo_queue_push($argv[1], 'before');
$pid = pcntl_fork();
if ($pid === 0) {
    $code = json_decode(pogo_queue_push($argv[1], 'child'))->code;
    exit($code === 1 ? 0 : 10 + $code);
}
$parent = pogo_queue_push($argv[1], 'parent');
pcntl_waitpid($pid, $status);
$after = pogo_queue_push($argv[1], 'after');
echo json_encode(['before' => $before, 'parent' => $parent, 'child' => pcntl_wexitstatus($status), 'after' => $after]), "\n";
