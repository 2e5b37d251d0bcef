<?php
// A job sleeps first: an interrupt that was meant for the attempt before cuts the
// sleep, or ends the script.
while (frankenphp_handle_request(static function (string $message): void {
    $job = json_decode($message, true);
    if (time_nanosleep(0, 20_000) !== true) {
        pogo_queue_fail($job['queue'], $job['id'], 'the sleep was cut');
        return;
    }
    pogo_queue_ack($job['queue'], $job['id']);
})) {
}
