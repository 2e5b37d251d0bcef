<?php
// Server-sent events: each but the first waits until the client has asked for it, by a file of its number.
header('Content-Type: text/event-stream');
for ($i = 1; $i <= 3; $i++) {
    for ($late = microtime(true) + 30; $i > 1 && !file_exists(getenv('E2E_RECORD') . "/event$i"); usleep(5000)) {
        clearstatcache();
        if (microtime(true) > $late) {
            exit("data: nobody asked\n\n");
        }
    }
    echo "data: $i\n\n";
    flush();
}
