<?php
// The page of this application in worker mode. Each start of the script is noted.
$note = static fn (string $what) => file_put_contents(getenv('E2E_RECORD') . '/worker', "$what\n", FILE_APPEND);
$note('start ' . ($_SERVER['FRANKENPHP_WORKER'] ?? '') . ' ' . basename($_SERVER['APP_BASE_PATH'] ?? ''));
require __DIR__ . '/page.php';
if (is_file(getenv('E2E_RECORD') . '/broken')) {
    throw new RuntimeException("no database\nat all");
}
if (is_file(getenv('E2E_RECORD') . '/refuses')) {
    exit("it does not want to\n");
}
$max = (int) ($_SERVER['MAX_REQUESTS'] ?? 0);
for ($n = 1; frankenphp_handle_request(page(...)) && $n !== $max; $n++) {
}
$note('end');
