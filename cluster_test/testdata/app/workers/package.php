<?php
// A worker that runs on the Composer package, and notes what its handler was given. The payload says what it does.
declare(strict_types=1);

spl_autoload_register(static function (string $class): void { // what composer.json declares
    require dirname(__DIR__, 4) . '/php/src/' . str_replace('\\', '/', substr($class, strlen('Pogod\\'))) . '.php';
});

function note(string $queue, array $what): void
{
    file_put_contents(getenv('E2E_RECORD') . "/$queue.jsonl", json_encode($what, JSON_THROW_ON_ERROR) . "\n", FILE_APPEND | LOCK_EX);
}

$queue = '';
Pogod\Worker::run(function (Pogod\Job $job) use (&$queue): void {
    $queue = $job->queue;
    note($queue, ['what' => 'start', 'pid' => getmypid()] + get_object_vars($job));
    match ($job->payload) {
        'throw' => throw new RuntimeException('out of order'),
        'fail' => pogo_queue_fail($job->queue, $job->id, 'of its own'),
        default => null,
    };
});
note($queue, ['what' => 'left', 'job' => '']);
