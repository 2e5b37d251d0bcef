#!/usr/bin/env bash
# Runs the benchmarks of a test binary in rounds, the disk first in each, so that what the machine does meanwhile meets
# them all alike:
#
#   scripts/rounds.sh 5 bin/bench.test
set -euo pipefail
rounds=$1
binary=$2
for ((i = 0; i < rounds; i++)); do
	"$binary" -test.run '^$' -test.bench '^BenchmarkDisk$' -test.benchtime 1000x
	"$binary" -test.run '^$' -test.bench '^BenchmarkPHPPush$' -test.benchtime 16000x
	"$binary" -test.run '^$' -test.bench '^BenchmarkPHPCycle$' -test.benchtime 16000x
	"$binary" -test.run '^$' -test.bench '^BenchmarkPHPDispatch$' -test.benchtime 30000x
	"$binary" -test.run '^$' -test.bench '^BenchmarkPHPPublish$' -test.benchtime 100000x
done
