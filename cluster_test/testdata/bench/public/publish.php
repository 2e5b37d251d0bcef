<?php
// Publishes n events of 200 bytes, one after the other, and tells how long each took, in microseconds.
$data = '{"pad":"' . str_repeat('x', 190) . '"}';
$channel = $_GET['channel'];
$took = [];
for ($i = 0, $n = (int) $_GET['n']; $i < $n; $i++) {
    $start = hrtime(true);
    $code = pogo_websocket_publish('bench', $channel, 'event', $data);
    $took[] = intdiv(hrtime(true) - $start, 1000);
    if ($code !== 0) {
        http_response_code(500);
        exit("code $code");
    }
}
header('Content-Type: application/json');
echo json_encode($took);
