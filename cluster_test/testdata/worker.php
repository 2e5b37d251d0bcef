<?php
// Acks every job, and appends to RECORD what it got before the ack, and what the ack
// answered after it: "<payload> <attempts> <ack code> <delivery id>", the code "-" before.
// One fwrite is one write to a file that is open for appending, so lines do not mix.
$record = fopen(getenv('RECORD'), 'a');
while (frankenphp_handle_request(static function (string $message) use ($record): void {
    $job = json_decode($message, true, 512, JSON_THROW_ON_ERROR);
    $line = static fn (string $code): string => "{$job['payload']} {$job['attempts']} $code {$job['id']}\n";
    fwrite($record, $line('-'));
    $code = pogo_queue_ack($job['queue'], $job['id']);
    fwrite($record, $line((string) $code));
})) {
}
