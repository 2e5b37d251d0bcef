<?php
// Dispatches batches of jobs and awaits each, n jobs in all, and tells how long each batch took, in microseconds.
$batch = (int) $_GET['batch'];
$took = [];
for ($left = (int) $_GET['n']; $left > 0; $left -= $batch) {
    $start = hrtime(true);
    $handles = [];
    for ($i = 0; $i < $batch; $i++) {
        $handles[] = pogo_dispatch('Job', ['i' => $i]);
    }
    foreach ($handles as $i => $handle) {
        if (pogo_await($handle) !== $i) {
            http_response_code(500);
            exit('a wrong result');
        }
    }
    $took[] = intdiv(hrtime(true) - $start, 1000);
}
header('Content-Type: application/json');
echo json_encode($took);
