<?php

declare(strict_types=1);

namespace Pogod;

/** One delivery of a job, as a worker's handler gets it. */
final readonly class Job
{
    /**
     * @param string $id       the delivery, which pogo_queue_ack, _release and _fail settle
     * @param string $queue    the queue that it came from
     * @param string $payload  what was pushed
     * @param int    $attempts handlers started for this job, this one included
     * @param string $job      the job, as pogo_queue_push named it; the same in each attempt
     */
    public function __construct(
        public string $id,
        public string $queue,
        public string $payload,
        public int $attempts,
        public string $job,
    ) {
    }

    /**
     * Reads the message that frankenphp_handle_request gives to its callable.
     *
     * @throws \JsonException when it is not JSON
     */
    public static function fromMessage(string $message): self
    {
        $m = json_decode($message, true, 16, JSON_THROW_ON_ERROR);

        return new self($m['id'], $m['queue'], $m['payload'], $m['attempts'], $m['job']);
    }
}
