<?php
// Acks every job, and appends to RECORD what it got before the ack, and what the ack
// answered after it: "<microseconds> <payload> <attempts> <ack code> <delivery id>", the
// code "-" before. One fwrite is one write to a file that is open for appending, so lines
// do not mix.
$record = fopen(getenv('RECORD'), 'a');
while (frankenphp_handle_request(static function (string $message) use ($record): void {
    $job = json_decode($message, true, 512, JSON_THROW_ON_ERROR);
    $note = static fn (string $code) => fwrite($record, sprintf("%d %s %d %s %s\n", microtime(true) * 1e6, $job['payload'], $job['attempts'], $code, $job['id']));
    $note('-');
    $code = pogo_queue_ack($job['queue'], $job['id']);
    $note((string) $code);
})) {
}
