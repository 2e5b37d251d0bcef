<?php

declare(strict_types=1);

namespace Pogod;

/** The loop of a worker script. */
final class Worker
{
    /**
     * Gives jobs to the handler until the node tells the script to end: when it leaves, when its code is replaced, or
     * after the worker's max_jobs.
     *
     * A handler that returns has done its job, which is acked. One that throws has not: the exception goes on out of
     * run(), for the node to keep its class, message, file and line as the job's reason, and to release the job with its
     * queue's back-off, or fail it after max_attempts. The script ends by that and is started again at once, with nothing
     * left of what went wrong. Do not catch the exception around run().
     *
     * A handler may settle its job itself, with pogo_queue_release or pogo_queue_fail and the job's queue and id; the ack
     * after it changes nothing then.
     *
     * @param callable(Job): mixed $handler what it returns is not used
     */
    public static function run(callable $handler): void
    {
        $one = static function (string $message) use ($handler): void {
            $job = Job::fromMessage($message);
            $handler($job);
            $code = pogo_queue_ack($job->queue, $job->id);
            if ($code !== 1 && $code !== 5) { // 5: it was settled already, or its time was up, of which the node knows more
                trigger_error("job {$job->job} of queue {$job->queue} was done, but its ack was answered {$code}: it will run again", E_USER_WARNING);
            }
        };
        while (frankenphp_handle_request($one)) {
        }
    }
}
