<?php
while (frankenphp_handle_request(static function (string $message): void {
    $job = json_decode($message, true);
    pogo_queue_ack($job['queue'], $job['id']);
})) {
}
