<?php
// The worker of the end-to-end tests: a job's payload says, for each attempt or for all ("*"), what its handler does. What
// it did is noted in a file per queue, for the test to read.
declare(strict_types=1);

function note(array $job, array $what): void
{
    $what += ['job' => $job['job'], 'id' => $job['id'], 'attempts' => $job['attempts'], 'pid' => getmypid(), 'at' => (int) (microtime(true) * 1000)];
    file_put_contents(getenv('E2E_RECORD') . "/{$job['queue']}.jsonl", json_encode($what, JSON_THROW_ON_ERROR) . "\n", FILE_APPEND | LOCK_EX);
}

/** Does one step, as ["release", 1], and returns what the functions answered. */
function step(array $job, string $do, mixed ...$with): mixed
{
    switch ($do) {
        case 'ack':
        case 'release':
        case 'fail':
            return ("pogo_queue_$do")($job['queue'], $job['id'], ...$with);
        case 'call':
            $f = array_shift($with);
            return $f(...$with);
        case 'throw':
            throw new RuntimeException($with[0]);
        case 'exit':
            exit($with[0]);
        case 'memory':
            return strlen(str_repeat('x', 1 << 30));
        case 'spin':
            for (;;) {
            }
        case 'sleep':
            return sleep(1000);
        case 'refused': // pushes until a push is refused, and tells the code
            do {
                $answer = json_decode(pogo_queue_push($with[0], 'x'));
                usleep(2_000);
            } while ($answer->code === 1);
            return $answer->code;
        case 'gate': // until the test opens it
            while (!file_exists(getenv('E2E_RECORD') . "/$with[0].open")) {
                usleep(5_000);
                clearstatcache();
            }
            return null;
        case 'killself':
            return posix_kill(posix_getpid(), SIGKILL);
        case 'curl': // a server that never answers
            $c = curl_init("http://127.0.0.1:$with[0]/");
            curl_setopt($c, CURLOPT_RETURNTRANSFER, true);
            return curl_exec($c);
        case 'mysql':
            return new PDO("mysql:host=127.0.0.1;port=$with[0]", 'a', 'b') && true;
        case 'sqlite': // counts for minutes
            return (new PDO('sqlite::memory:'))->query('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000000) SELECT count(*) FROM n')->fetchColumn();
        case 'print': // so many megabytes at once
            echo str_repeat(str_repeat('x', 1023) . "\n", 1024 * $with[0]);
            return null;
        case 'ini':
            return ini_get($with[0]);
        case 'setini':
            return ini_set(...$with);
        case 'segv':
            return posix_kill(posix_getpid(), SIGSEGV);
    }
    throw new LogicException("no step is called $do");
}

while (frankenphp_handle_request(static function (string $message): void {
    $job = json_decode($message, true, 512, JSON_THROW_ON_ERROR);
    note($job, ['what' => 'start', 'payload' => $job['payload']]);
    $plan = json_decode($job['payload'], true);
    if (!is_array($plan)) {
        $plan = ['*' => [['ack']]];
    }
    foreach ($plan[$job['attempts']] ?? $plan['*'] ?? [] as $step) {
        note($job, ['what' => $step[0], 'result' => step($job, ...$step)]);
    }
})) {
}
