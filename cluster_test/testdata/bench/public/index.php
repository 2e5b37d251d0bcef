<?php
// Pushes n jobs to queue q, one after the other, and tells how long each took, in microseconds.
$payload = str_repeat('x', (int) ($_GET['bytes'] ?? 256));
$took = [];
for ($i = 0, $n = (int) $_GET['n']; $i < $n; $i++) {
    $start = hrtime(true);
    $answer = pogo_queue_push($_GET['q'], $payload);
    $took[] = intdiv(hrtime(true) - $start, 1000);
    if (!str_ends_with($answer, '"code":1}')) {
        http_response_code(500);
        exit($answer);
    }
}
header('Content-Type: application/json');
echo json_encode($took);
