<?php
// Writes until its client is gone, and notes how it learned so.
$note = static fn (string $what) => file_put_contents(getenv('E2E_RECORD') . '/' . $_GET['name'], $what);
ignore_user_abort($_GET['ignore'] === '1');
register_shutdown_function(static function () use ($note): void {
    if (connection_status() === CONNECTION_ABORTED && $_GET['ignore'] !== '1') {
        $note('ended');
    }
});
for ($late = microtime(true) + 30; microtime(true) < $late; usleep(5000)) {
    echo '.';
    flush();
    if (connection_aborted()) {
        $note('saw it'); // only a script that ignores it comes here
        exit;
    }
}
$note('never saw it');
