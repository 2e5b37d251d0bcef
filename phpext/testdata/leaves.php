<?php
// Goes on after it was told to leave its loop.
register_shutdown_function(static function (): void { echo "shutdown\n"; });
while (frankenphp_handle_request(static fn () => null)) {
}
echo "leaving\n";
for (;;) {
    usleep(100_000);
}
