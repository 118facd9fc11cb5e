"""DBOS as a peer of the pipeline on PostgreSQL: workflows of six steps, 64 at once, as durable as ours.

`python main.py FOLDER SECONDS` prints `{"value": steps a second, "processor_micros": for each step}`.
"""

import json
import logging
import os
import sys
import threading
import time

from dbos import DBOS, DBOSConfig

AT_ONCE = 64
STEPS = 6

logging.disable(logging.WARNING)
url = os.environ["PAAS_BENCH_DATABASE"].replace("postgresql://", "postgresql+psycopg://")
config: DBOSConfig = {"name": "peer", "system_database_url": url, "log_level": "ERROR"}
DBOS(config=config)


@DBOS.step()
def step(number: int) -> int:
    return number


@DBOS.workflow()
def deployment() -> None:
    for number in range(STEPS):
        step(number)


def main() -> None:
    seconds = float(sys.argv[2])
    DBOS.launch()
    counts = [0] * AT_ONCE
    is_over = threading.Event()

    def client(number: int) -> None:
        while not is_over.is_set():
            deployment()
            counts[number] += STEPS

    clients = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(AT_ONCE)]
    begun, processor = time.monotonic(), time.process_time()
    for thread in clients:
        thread.start()
    time.sleep(seconds)
    steps, elapsed = sum(counts), time.monotonic() - begun
    used = time.process_time() - processor
    is_over.set()
    print(json.dumps({"value": steps / elapsed, "processor_micros": used * 1e6 / max(steps, 1)}), flush=True)
    os._exit(0)


main()
