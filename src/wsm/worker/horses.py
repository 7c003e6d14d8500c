"""One ordinary RQ job, run by RQ's own code.

RQ calls what runs a job its work horse. Ours is RQ's `SimpleWorker`, one object and one thread for each job:
statuses, registries, results, Retry, repeats, callbacks, dependents and webhooks are RQ's. What is replaced:

- a coroutine, job or callback, runs on the loop that all jobs share, while its thread waits;
- a time-out or a stop raises in the thread when it next runs Python, and cancels a coroutine. A call that
  blocks outside of Python is broken by neither;
- a job in a pickle is refused, never loaded;
- a failure callback that raises no longer ends the cleaning of abandoned jobs, and no longer needs the main
  thread there;
- a job may be handed back: put first in its queue again, as if it had never been begun.

A job runs at least once: what a lost worker had begun is begun again, if its Retry says so, or failed.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import redis
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError, NoSuchJobError, TimeoutFormatError
from rq.job import Job
from rq.serializers import JSONSerializer

from wsm.worker.threads import Deadline, HandedBack, JobStopped

WORKER_TTL_SECONDS = 60
"""How long a silent worker is still listed."""


class JsonJob(Job):
    """A job as a horse runs it, and as the cleaning of abandoned jobs finds it (then without a horse)."""

    horse: "Horse | None" = None

    @classmethod
    def fetch(cls, id: str, connection: Any = None, serializer: Any = None) -> Job:  # noqa: A002 (RQ's name)
        """Read a job. A hash that RQ cannot read is none: it must not stop the cleaning of the others."""
        try:
            return super().fetch(id, connection, serializer)
        except (TypeError, ValueError, TimeoutFormatError) as exc:
            raise NoSuchJobError(f"{id} cannot be read: {type(exc).__name__}") from exc

    def _deserialize_data(self) -> None:
        try:
            super()._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as exc:
            text = "its data is not JSON: enqueue with RQ's JSONSerializer. Pickles are never loaded here."
            raise DeserializationError(text) from exc.__cause__

    def _execute(self) -> Any:
        return self._ended(self.func(*self.args, **self.kwargs))

    @property
    def success_callback(self) -> Any:
        """The callback, whether a coroutine or not."""
        return self._awaiting(super().success_callback)

    @property
    def failure_callback(self) -> Any:
        """The same."""
        return self._awaiting(super().failure_callback)

    @property
    def stopped_callback(self) -> Any:
        """The same."""
        return self._awaiting(super().stopped_callback)

    def execute_failure_callback(self, death_penalty_class: Any, *exc_info: Any) -> None:
        """Tell of a failure, or of a stop; RQ's cleaning calls this too, and must survive it."""
        if self.horse is None:
            with contextlib.suppress(Exception, SystemExit):  # RQ has logged it
                super().execute_failure_callback(Deadline, *exc_info)
        elif self.horse.is_stopped:
            self.execute_stopped_callback(death_penalty_class)
        else:
            super().execute_failure_callback(death_penalty_class, *exc_info)

    def _awaiting(self, callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return callback and (lambda *arguments: self._ended(callback(*arguments)))

    def _ended(self, result: Any) -> Any:
        if not inspect.iscoroutine(result):
            return result
        if self.horse is not None:
            return self.horse.wait_for(result)
        return asyncio.run(asyncio.wait_for(result, self.failure_callback_timeout))


class Stock(SimpleWorker):
    """RQ's worker as it is listed, and as it cleans: with our time-outs."""

    job_class = JsonJob
    log_result_lifespan = False

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection  # RQ's would let every command take a minute

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:  # noqa: ARG002 (RQ's)
        """Tell that the worker lives; never for less long than its own beat does."""
        super().heartbeat(WORKER_TTL_SECONDS, pipeline)


class Horse(Stock):
    """One job's.

    stock          what it is a copy of: RQ keeps one execution for each worker object
    loop           where coroutines run, in another thread
    lease_seconds  how long the job is its own without `renew`
    """

    def __init__(
        self, stock: Stock, queue: Queue, job_id: str, loop: asyncio.AbstractEventLoop, lease_seconds: int
    ) -> None:
        vars(self).update(vars(stock))
        self.queues = [queue]  # one alone: then RQ takes the job out of the intermediate list as it begins
        self.execution = None
        self.log_job_description = False  # it has the arguments in it
        self.job_id = job_id
        self.is_stopped = False
        self._queue = queue
        self._loop = loop
        self._lease_seconds = lease_seconds
        self._job: JsonJob | None = None
        self._deadline: Deadline | None = None
        self._pending: Exception | None = None
        self._lock = threading.Lock()  # held for a moment only: the bells' loop may wait for it
        self._renewing = threading.Lock()
        self._is_over = False
        self._is_given_up = False
        self._is_settled = False

    def run(self) -> str:
        """Run the job to its end, and return what that was: finished, failed, stopped, handed_back, gone.

        Blocks as long as the job takes. Raises RedisError when the end could not be recorded: then the job is
        found abandoned.
        """
        try:
            job = JsonJob.fetch(self.job_id, self.connection, JSONSerializer)
        except NoSuchJobError:
            self._queue.intermediate_queue.remove(self.job_id)
            return "gone"
        assert isinstance(job, JsonJob)
        job.horse = self
        self._job = job
        try:
            self.prepare_execution(job)
            is_done = self.perform_job(job, self._queue)
        except HandedBack:
            return "handed_back"
        return "finished" if is_done else "stopped" if self.is_stopped else "failed"

    def stop(self) -> None:
        """End the job as stopped, if it has not ended yet. From any thread; does not block."""
        self.is_stopped = True
        self._stopped_job_id = self.job_id
        self._strike(JobStopped("Job stopped by user."))

    def renew(self) -> None:
        """Tell RQ that the job is still being run. Raises RedisError."""
        with self._renewing:
            if self._job is not None and self.execution is not None and not self._is_settled:
                self.maintain_heartbeats(self._job)

    def give_up(self) -> bool:
        """End the function so that `hand_back` may follow; False when it has ended already.

        From now on the horse records nothing, whatever its thread still does. Does not block.
        """
        with self._lock:
            if self._is_over:
                return False
            self._is_given_up = True
        self._strike(HandedBack("The worker ends."))
        return True

    def hand_back(self) -> None:
        """Put the job first in its queue again, and count nothing. Raises RedisError.

        One that was taken and not begun yet stays where it is: it is put back by whoever keeps house.
        """
        if self.execution is None:
            return
        try:
            job = JsonJob.fetch(self.job_id, self.connection, JSONSerializer)
        except NoSuchJobError:
            return
        job.started_at = job.worker_name = None
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(job, pipeline)
            pipeline.lrem(self._queue.intermediate_queue_key, 1, job.id)
            self._queue._enqueue_job(job, pipeline=pipeline, at_front=True)  # noqa: SLF001 (RQ has no other)
            pipeline.execute()

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the job where all of them run."""
        assert self._deadline is not None
        return self._deadline.wait_for(coroutine, self._loop)

    def _strike(self, exc: Exception) -> None:
        with self._lock:
            if self._deadline is None or not self._deadline.strike(exc):
                self._pending = exc

    def death_penalty_class(self, timeout: float, exception: type[Exception], **_: object) -> Deadline:  # type: ignore[override]
        """Limit what RQ is about to call: the function, then a callback."""
        with self._lock:
            if (exc := self._pending) is not None:
                self._pending = None
                raise exc
            self._deadline = Deadline(timeout, exception)
        return self._deadline

    def get_heartbeat_ttl(self, job: Job) -> int:  # noqa: ARG002 (RQ's)
        """Let RQ's registries hold the job for our lease, not for its time-out and a minute."""
        return self._lease_seconds

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Take note that the function has ended, unless the job is another's by now."""
        with self._lock:
            if self._is_given_up:
                raise HandedBack
            self._is_over = True
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    def cleanup_execution(self, job: Job, pipeline: Any) -> None:
        """Forget the execution as the job's end is recorded, and never renew it again.

        RQ forgets it at the first try, and would leave it there when the second one succeeds.
        """
        with self._renewing:
            self._is_settled = True
        execution = self.execution
        super().cleanup_execution(job, pipeline)
        self.execution = execution

    def set_current_job_id(self, job_id: str | None = None, pipeline: Any = None) -> None:
        """Name none: a worker has many at once."""

    def procline(self, message: str) -> None:
        """Leave the process its title."""


def stock(connection: redis.Redis, name: str, queues: Sequence[str]) -> Stock:
    """Make RQ's worker object. Asks Redis for its address; writes nothing."""
    return Stock(
        queues, name=name, connection=connection, serializer=JSONSerializer, worker_ttl=WORKER_TTL_SECONDS
    )
