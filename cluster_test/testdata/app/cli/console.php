#!/usr/bin/env php
<?php
// A console application as Symfony's are: commands with a name, options, output on two streams, and an exit code.
abstract class Command
{
    public const SUCCESS = 0;
    public const INVALID = 2;

    abstract public function execute(array $options): int;

    protected function line(string $text): void { fwrite(STDOUT, $text . PHP_EOL); }
    protected function note(string $text): void { fwrite(STDERR, $text . PHP_EOL); }
}

final class Push extends Command
{
    public function execute(array $options): int
    {
        $answer = json_decode(pogo_queue_push($options['queue'], trim(stream_get_contents(STDIN))), true, flags: JSON_THROW_ON_ERROR);
        $this->note($answer['ok'] ? 'accepted' : $answer['message']);
        $this->line($answer['id'] ?? '');
        return $answer['ok'] ? self::SUCCESS : 10 + $answer['code'];
    }
}

final class Status extends Command
{
    public function execute(array $options): int
    {
        $queue = json_decode(pogo_queue_status($options['queue']), true, flags: JSON_THROW_ON_ERROR)['queues'][0];
        $this->line("{$queue['queue']} {$queue['pending']}");
        return self::SUCCESS;
    }
}

$commands = ['queue:push' => Push::class, 'queue:status' => Status::class];
$name = $argv[1] ?? '';
if (!isset($commands[$name])) {
    fwrite(STDERR, "Command \"$name\" is not defined." . PHP_EOL);
    exit(Command::INVALID);
}
$options = [];
foreach (array_slice($argv, 2) as $option) {
    [$key, $value] = explode('=', substr($option, 2), 2);
    $options[$key] = $value;
}
exit((new $commands[$name]())->execute($options));
