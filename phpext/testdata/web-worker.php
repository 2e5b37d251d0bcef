<?php
// A worker of pages, and of jobs: a page brings no message.
$handle = static function (?string $message = null): void {
    if ($message === null) {
        echo 'page ', $_SERVER['REQUEST_URI'];
        return;
    }
    $job = json_decode($message, true);
    pogo_queue_ack($job['queue'], $job['id']);
};
while (frankenphp_handle_request($handle)) {
}
