// graphile-worker as a peer of the pipeline on PostgreSQL: small jobs, 64 at once, fetched and completed in batches, as
// durable as ours.
//
// `node main.mjs FOLDER SECONDS` prints `{"value": jobs a second, "processor_micros": for each job}`. The jobs are in the
// queue before the measuring begins, which spares it the cost of accepting them.

import { Logger, makeWorkerUtils, run } from "graphile-worker";

const AT_ONCE = 64;
// More than it does in the time.
const JOBS_PER_SECOND = 40_000;

const seconds = Number(process.argv[3]);
const connectionString = process.env.PAAS_BENCH_DATABASE;
const utils = await makeWorkerUtils({ connectionString });
await utils.migrate();
await utils.withPgClient((client) =>
  client.query(
    `select graphile_worker.add_jobs(array(
       select json_populate_record(null::graphile_worker.job_spec, '{"identifier": "step"}')
       from generate_series(1, $1::int)))`,
    [Math.ceil(seconds * JOBS_PER_SECOND)],
  ),
);
await utils.release();

let done = 0;
const runner = await run({
  connectionString,
  noHandleSignals: true,
  taskList: {
    step: async () => {
      done += 1;
    },
  },
  preset: {
    worker: {
      concurrentJobs: AT_ONCE,
      maxPoolSize: 10,
      localQueue: { size: 512 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      // A line for each job would be most of its work.
      logger: new Logger(() => () => {}),
    },
  },
});
const [begun, processor, before] = [performance.now(), process.cpuUsage(), done];
await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const jobs = done - before;
const { user, system } = process.cpuUsage(processor);
const value = jobs / ((performance.now() - begun) / 1000);
process.stdout.write(`${JSON.stringify({ value, processor_micros: (user + system) / Math.max(jobs, 1) })}\n`);
// What is still in the queue is nobody's.
process.exit(runner ? 0 : 1);
