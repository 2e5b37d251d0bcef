<?php
// A worker whose callable returns 100 MB, of which nothing is used.
declare(strict_types=1);

while (frankenphp_handle_request(static function (string $message): string {
    $job = json_decode($message, true, 512, JSON_THROW_ON_ERROR);
    $note = ['what' => 'ack', 'job' => $job['job'], 'attempts' => $job['attempts'], 'pid' => getmypid(), 'result' => pogo_queue_ack($job['queue'], $job['id'])];
    file_put_contents(getenv('E2E_RECORD') . "/{$job['queue']}.jsonl", json_encode($note, JSON_THROW_ON_ERROR) . "\n", FILE_APPEND | LOCK_EX);
    return str_repeat('x', 100_000_000);
})) {
}
