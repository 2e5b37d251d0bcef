<?php
// Every way in which an attempt can end; the payload says which.
$late = null;
$handle = static function (string $message) use (&$late): void {
    $job = json_decode($message, true);
    [$way, $arg] = explode(' ', $job['payload'], 2) + [1 => ''];
    switch ($way) {
        case 'throw':
            throw new DomainException($arg);
        case 'exit':
            exit((int) $arg);
        case 'loop':
            echo "looping\n";
            for (;;) {
            }
        case 'sleep':
            echo "sleeping\n";
            sleep(100);
            break;
        case 'limit': // an interrupt that a job tries to escape
            echo "limiting\n";
            for (;;) {
                set_time_limit(100);
            }
        case 'memory':
            ini_set('memory_limit', '32M');
            str_repeat('x', 1 << 30);
            break;
        case 'forget':
            return;
        case 'print': // a line and a part of one, and then the job goes wrong
            echo "a line\nand a part";
            switch ($arg) {
                case 'fail':
                    pogo_queue_fail($job['queue'], $job['id']);
                    return;
                case 'release':
                    pogo_queue_release($job['queue'], $job['id']);
                    return;
                case 'throw':
                    throw new DomainException('it broke');
            }
            return;
        case 'late':
            $late = $job;
            return;
        case 'late-throw':
            $late = new LogicException($arg);
            return;
        case 'handler':
            set_exception_handler(static function (Throwable $e): void { echo 'handled ', $e->getMessage(), "\n"; });
            throw new DomainException($arg);
        case 'echo':
            echo $arg;
            break;
        case 'buffer':
            ob_start();
            echo $arg;
            break;
        case 'stderr':
            fwrite(STDERR, "stderr $arg\n");
            fwrite(STDOUT, "stdout $arg\n");
            echo var_export(fgets(STDIN), true), "\n";
            break;
        case 'log':
            error_log("logged $arg");
            trigger_error("warned $arg", E_USER_WARNING);
            break;
        case 'time-limit':
            echo set_time_limit((int) $arg) ? 'limit is set' : 'limit is refused', "\n";
            break;
        case 'tell-limits':
            echo json_encode([ini_get('max_execution_time'), error_get_last(), connection_status(), ob_get_level(), ignore_user_abort(), headers_sent()]), "\n";
            header('X-A: b');
            break;
        case 'nap': // longer than the time limit that the job before has set
            echo "napping\n";
            usleep(1_300_000);
            break;
        case 'pcntl':
            echo json_encode([pcntl_signal(SIGTERM, static fn () => null), pcntl_fork()]), "\n";
            break;
        case 'env':
            echo json_encode([getenv('COLOUR'), $_SERVER['COLOUR'] ?? null, getenv('APP_BASE_PATH'), $_SERVER['FRANKENPHP_WORKER'] ?? null,
                $_SERVER['POGO_WORKER'] ?? null, $_SERVER['POGO_ENV'] ?? null, getcwd(), getenv('POGOD_HOST_SPEC')], JSON_UNESCAPED_SLASHES), "\n";
            break;
        case 'ini':
            echo json_encode([ini_get('error_prepend_string'), ini_get('error_append_string'), ini_get('date.timezone'), error_reporting() === (E_ALL & ~E_NOTICE)], JSON_UNESCAPED_SLASHES), "\n";
            break;
        case 'segv':
            posix_kill(posix_getpid(), SIGSEGV);
            sleep(1);
            break;
        case 'bad-utf8':
            throw new DomainException(str_repeat("\xc3\xbc", 4000) . "\xff" . str_repeat("\xc3\xbc", 4000));
    }
    pogo_queue_ack($job['queue'], $job['id']);
};
while (frankenphp_handle_request($handle)) {
    if ($late instanceof Throwable) {
        throw $late;
    }
    if ($late) {
        echo 'late: ', pogo_queue_ack($late['queue'], $late['id']), "\n";
        $late = null;
    }
}
