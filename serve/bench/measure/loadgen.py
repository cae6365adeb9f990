"""Owns MLPerf's LoadGen as a driver: it sends the queries and reads the clock, and its trace is read for every sample.

LoadGen is the package `mlcommons-loadgen` (the extra `loadgen`). The rules of a submission, such as ten minutes a run,
are not kept: a visit is a run of LoadGen in its performance mode, as short as a visit is.
"""

from __future__ import annotations

import importlib
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from serve.bench.measure.latency_data import Setting
from serve.bench.measure.scenarios import server_visit_ms
from zoo.errors import MissingCapabilityError, ZooError
from zoo.measure.timing import Samples, Schedule
from zoo.stopping import hold_signals

# Of LoadGen's trace: the query a sample belongs to, and the time from its issue, in "server" its schedule, to its end.
_SAMPLE = re.compile(r'"name":"Sample".*?"ts":(-?[\d.]+).*?"query_seq":(\d+).*?"complete_ns":(\d+)')
# The pictures LoadGen may choose among; ours are the same batch throughout, so that both drivers call alike.
_PICTURES = 64
# Between answers that nobody needs any more, seconds: without it there would be millions.
IDLE_S = 0.01


def load_loadgen() -> Any:
    """Import LoadGen.

    Raises:
        MissingCapabilityError: it is not installed.
    """
    try:
        return importlib.import_module("mlperf_loadgen")
    except ModuleNotFoundError as error:
        raise MissingCapabilityError(
            "--driver loadgen: mlcommons-loadgen is not installed.", "pip install 'zoo[loadgen]'"
        ) from error


class LoadGen:
    """An artifact that LoadGen calls in one setting; `visit` is one run of it."""

    def __init__(self, infer: Callable[[int], object], setting: Setting) -> None:
        """Prepare to call `infer`, which answers so many pictures.

        Raises:
            MissingCapabilityError: LoadGen is not installed.
            ZooError: LoadGen's single stream is of single pictures.
        """
        self._loadgen = load_loadgen()
        if setting.scenario == "single_stream" and setting.batch_size != 1:
            raise ZooError(
                f"LoadGen's single stream sends one picture at a time, not {setting.batch_size}.",
                "Pass --batch-size 1, or --scenario multi_stream for queries of several.",
            )
        self._infer, self._setting = infer, setting

    def visit(self, schedule: Schedule) -> Samples:
        """One run; a sample is a query's time, in "offline" a batch's, in "server" a picture's."""
        loadgen, setting = self._loadgen, self._setting
        with (
            tempfile.TemporaryDirectory() as folder,
            hold_signals() as stopping,  # an exception in a callback ends the process
            _Pictures(self._infer, setting, loadgen, stopping) as pictures,
        ):
            output = loadgen.LogOutputSettings()
            output.outdir, output.copy_summary_to_stdout = folder, False
            log = loadgen.LogSettings()
            log.log_output, log.enable_trace = output, True
            under_test = loadgen.ConstructSUT(pictures.issue, lambda: None)
            library = loadgen.ConstructQSL(_PICTURES, _PICTURES, lambda chosen: None, lambda chosen: None)
            try:
                loadgen.StartTestWithLogSettings(under_test, library, _test_settings(loadgen, setting, schedule), log)
            finally:
                loadgen.DestroyQSL(library)
                loadgen.DestroySUT(under_test)
            pictures.raise_what_failed()
            return read_trace((Path(folder) / "mlperf_log_trace.json").read_text(encoding="utf-8"), setting)


class _Pictures(threading.Thread):
    """LoadGen's queries on their way to the artifact: answered where they come, in "server" by this thread."""

    def __init__(
        self, infer: Callable[[int], object], setting: Setting, loadgen: Any, stopping: Callable[[], bool]
    ) -> None:
        super().__init__(name="loadgen-answers", daemon=True)
        self._infer, self._setting, self._loadgen, self._stopping = infer, setting, loadgen, stopping
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._failed: Exception | None = None

    def __enter__(self) -> _Pictures:
        if self._setting.scenario == "server":
            self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self.is_alive():
            self._waiting.put(None)
            self.join()

    def issue(self, query: Sequence[Any]) -> None:
        """Take a query; LoadGen calls it."""
        ids, most = [sample.id for sample in query], self._setting.batch_size
        if self._setting.scenario == "server":
            for id in ids:
                self._waiting.put(id)
            return
        for start in range(0, len(ids), most):
            self._answer(ids[start : start + most])

    def run(self) -> None:
        """Answer what waits, as much at once as may be, until there is nothing more to come."""
        while (first := self._waiting.get()) is not None:
            taken = [first]
            while len(taken) < self._setting.batch_size and not self._waiting.empty():
                another = self._waiting.get()
                if another is None:
                    self._waiting.put(None)
                    break
                taken.append(another)
            self._answer(taken)

    def raise_what_failed(self) -> None:
        """Raise the first error of the artifact, which LoadGen would not know what to do with."""
        if self._failed:
            raise self._failed

    def _answer(self, ids: Sequence[int]) -> None:
        try:
            if self._failed or self._stopping():
                time.sleep(IDLE_S)  # LoadGen goes on to the end of the visit
            else:
                self._infer(len(ids))
        except ZooError as error:
            self._failed = error
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(id, 0, 0) for id in ids])


def _test_settings(loadgen: Any, setting: Setting, schedule: Schedule) -> Any:
    """LoadGen's settings of a run as long as a visit."""
    settings = loadgen.TestSettings()
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.scenario = {
        "single_stream": loadgen.TestScenario.SingleStream,
        "multi_stream": loadgen.TestScenario.MultiStream,
        "offline": loadgen.TestScenario.Offline,
        "server": loadgen.TestScenario.Server,
    }[setting.scenario]
    settings.min_duration_ms = max(int(schedule.duration_ms), 1)
    settings.min_query_count = schedule.min_iterations
    if setting.scenario == "multi_stream":
        settings.multi_stream_samples_per_query = setting.batch_size
    elif setting.scenario == "offline":
        # One query of as many pictures as are expected in the time and a tenth more; at least one batch.
        settings.offline_expected_qps = setting.batch_size * 1000 / settings.min_duration_ms
        settings.min_query_count = 1
    elif setting.scenario == "server":
        settings.server_target_qps = setting.offered_per_second
        settings.min_duration_ms = int(server_visit_ms(setting.offered_per_second or 1.0, schedule))
        settings.server_target_latency_ns = 10**12  # nothing is judged here
    return settings


def read_trace(trace: str, setting: Setting) -> Samples:
    """Every sample of a run from its trace. (It is no valid JSON: LoadGen writes texts in two pairs of quotes.)

    Raises:
        ZooError: there is no sample in it.
    """
    found = [(float(begin) / 1e3, int(query), int(ns) / 1e6) for begin, query, ns in _SAMPLE.findall(trace)]
    if not found:
        raise ZooError("LoadGen's trace has no samples.", "Another release of mlcommons-loadgen? 6.0 is known to work.")
    if setting.scenario == "offline":
        ends = sorted(ms for _, _, ms in found)
        last_of_batch = [*ends[setting.batch_size - 1 :: setting.batch_size]]
        if len(ends) % setting.batch_size:
            last_of_batch.append(ends[-1])
        return Samples(tuple(end - start for start, end in pairwise([0.0, *last_of_batch])), ends[-1])
    queries: dict[int, float] = {}
    for _, query, ms in found:
        queries[query] = max(ms, queries.get(query, 0.0))
    wall_ms = max(begin + ms for begin, _, ms in found) - min(begin for begin, _, _ in found)
    return Samples(tuple(queries[query] for query in sorted(queries)), wall_ms)
