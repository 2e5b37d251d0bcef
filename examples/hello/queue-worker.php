<?php
// Handles the jobs of this example: one string in, settled inside the callback.
// What it does not settle, because it throws for example, pogod releases and tries again.
while (frankenphp_handle_request(static function (string $message): void {
    $job = json_decode($message, true, 512, JSON_THROW_ON_ERROR);
    $work = json_decode($job['payload'], true) ?: [];
    switch ($work['kind'] ?? '') {
        case 'slow':
            sleep(3);
            break;
        case 'failing':
            throw new RuntimeException("attempt {$job['attempts']} failed, as it was asked to");
    }
    echo "hello, {$work['name']}\n"; // in pogod's log, with the job's id
    pogo_queue_ack($job['queue'], $job['id']);
})) {
}
