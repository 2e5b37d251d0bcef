<?php
// The pools' worker of the end-to-end tests: the class says what is done.
declare(strict_types=1);

final class Loop implements JsonSerializable
{
    public function jsonSerialize(): mixed
    {
        throw new LogicException('not as JSON');
    }
}

function record(string $name): string
{
    return getenv('E2E_RECORD') . '/' . $name;
}

function perform(string $class, array $args): mixed
{
    $ok = static fn (mixed $result): array => ['ok' => true, 'result' => $result];
    switch ($class) {
        case 'Echo':
            return $ok($args);
        case 'Text': // the envelope as JSON
            return json_encode($ok($args), JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION, 4096);
        case 'Raw':
            return $args['envelope'];
        case 'Message': // the very text that came
            return $ok($GLOBALS['message']);
        case 'Unencodable':
            return $ok(['resource' => fopen('php://memory', 'r'), 'bytes' => "\xff", 'nan' => NAN, 'loop' => new Loop()][$args[0]]);
        case 'Throw':
            throw new DomainException($args[0]);
        case 'Exit':
            exit($args[0]);
        case 'Memory':
            return $ok(strlen(str_repeat('x', 1 << 30)));
        case 'Busy': // for so many microseconds
            for ($end = hrtime(true) + 1000 * $args[0]; hrtime(true) < $end;) {
            }
            return $ok(null);
        case 'Spin':
            touch(record($args[0]));
            for (;;) {
            }
        case 'Sleep':
            touch(record($args[0]));
            sleep(1000);
        case 'Gate': // until the test opens it
            touch(record($args[0]));
            while (!file_exists(record($args[0] . '.open'))) {
                usleep(5_000);
                clearstatcache();
            }
            return $ok(getmypid());
        case 'Touch':
            touch(record($args[0]));
            return $ok(null);
        case 'Kill':
            posix_kill(getmypid(), $args[0]);
            sleep(1000);
        case 'Big':
            return $ok(str_repeat('é', intdiv($args[0], 2)));
        case 'Deep':
            for ($deep = 1; $args[0] > 0; $args[0]--) {
                $deep = [$deep];
            }
            return $ok($deep);
        case 'Nest': // dispatches into a pool and tells what came of it
            try {
                return $ok(['result' => pogo_await(pogo_dispatch($args['class'], $args['args'], $args['pool']), 30.0)]);
            } catch (Throwable $e) {
                return $ok(['thrown' => $e::class . ': ' . $e->getMessage()]);
            }
        case 'Leave': // what it dispatches and does not await
            pogo_dispatch('Sleep', [$args[0]]);
            while (!file_exists(record($args[0]))) {
                usleep(5_000);
                clearstatcache();
            }
            return $ok(null);
        case 'Environment':
            return $ok([$_SERVER['POGO_POOL'] ?? null, $_SERVER['POGO_WORKER'] ?? null, $_SERVER['FLAVOUR'] ?? null, getenv('FLAVOUR')]);
        case 'Settings': // and the process that they are of
            return $ok([ini_get('memory_limit'), ini_get('precision'), ini_get('date.timezone'), getmypid()]);
        case 'Print':
            echo $args[0], "\n";
            return $ok(null);
    }
    return ['ok' => false, 'error' => "no class is called $class"];
}

while (frankenphp_handle_request(static function (string $text): mixed {
    $GLOBALS['message'] = $text;
    $message = json_decode($text, true, 4096, JSON_THROW_ON_ERROR);
    return perform($message['class'], $message['args']);
})) {
}
