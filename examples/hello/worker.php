<?php
// The page in worker mode: POGOD_WEB_WORKER=worker.php pogod serve --app examples/hello
// What is above the loop runs once in each thread; page() runs for each request, with its own superglobals.
require __DIR__ . '/page.php';

$max = (int) ($_SERVER['MAX_REQUESTS'] ?? 0); // 0: no bound
for ($n = 1; frankenphp_handle_request(page(...)); $n++) {
    gc_collect_cycles();
    if ($n === $max) {
        break; // pogod starts it again
    }
}
