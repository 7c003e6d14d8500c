"""What is done about sessions: single cases, and whole days of flaps on every engine."""

from collections import Counter, deque
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from wsm.core.upkeep import Alarm, Step, Verdict, Watched, is_steady, judge

START = datetime(2026, 11, 20, tzinfo=UTC)
ENGINES = ("GOWS", "NOWEB", "WEBJS", "WPP")
PERSONAL = ("SCAN_QR_CODE", "PASSKEY_REQUIRED", "PASSKEY_CONFIRMATION_REQUIRED")


def watched(status: str | None, **more: object) -> Watched:
    known = {"desired": "running", "engine": "GOWS", "since": START, **more}
    return Watched(status=status, **known)  # type: ignore[arg-type]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("status", "engine", "waits", "step"),
    [
        ("STOPPED", "GOWS", 20, Step.START),
        ("STOPPED", "WEBJS", 20, Step.START),
        ("FAILED", "GOWS", 10, Step.RESTART),
        ("FAILED", "NOWEB", 10, Step.RESTART),
        ("FAILED", "WEBJS", 90, Step.RESTART),
        ("FAILED", "WPP", 90, Step.RESTART),
        ("FAILED", None, 10, Step.RESTART),
        ("STARTING", "NOWEB", 180, Step.RESTART),
        ("A_NEW_ONE", "GOWS", 600, Step.RESTART),
        (None, None, 0, Step.CREATE),
    ],
)
def test_a_status_may_last_for_its_time_and_is_cured_then(
    status: str | None, engine: str | None, waits: int, step: Step
) -> None:
    its = watched(status, engine=engine)
    if waits:
        assert judge(its, after(waits - 1)) == Verdict()
    assert judge(its, after(waits)) == Verdict(step)


def test_what_works_is_left_alone_for_ever() -> None:
    assert judge(watched("WORKING"), after(10**7)) == Verdict()
    assert not is_steady(watched("WORKING"), after(599))
    assert is_steady(watched("WORKING"), after(600))
    assert not is_steady(watched("WORKING", repairs=1, repaired_at=after(300)), after(899))
    assert is_steady(watched("WORKING", repairs=1, repaired_at=after(300)), after(900))
    assert not is_steady(watched("STARTING"), after(10**7))


@pytest.mark.parametrize("status", PERSONAL)
def test_who_asks_for_a_person_is_never_restarted(status: str) -> None:
    assert judge(watched(status), after(10**6)) == Verdict(alarm=Alarm.LOGIN_NEEDED)
    assert judge(watched(status, paired=False), after(10**6)) == Verdict()


def test_a_pairing_that_nobody_finished_is_not_begun_again() -> None:
    assert judge(watched("FAILED", paired=False), after(10**6)) == Verdict(alarm=Alarm.PAIRING_EXPIRED)


@pytest.mark.parametrize("status", ["WORKING", "STARTING", "FAILED", *PERSONAL])
def test_what_should_be_stopped_is_stopped(status: str) -> None:
    assert judge(watched(status, desired="stopped"), START) == Verdict(Step.STOP)
    its = watched(status, desired="stopped", repairs=1, repaired_at=START)
    assert judge(its, after(59)) == Verdict()
    assert judge(its, after(60)) == Verdict(Step.STOP)


@pytest.mark.parametrize("status", [None, "STOPPED"])
def test_what_is_stopped_and_should_be_stays_so_once_its_exit_is_released(status: str | None) -> None:
    assert judge(watched(status, desired="stopped", leased=True), START) == Verdict(Step.STOP)
    assert judge(watched(status, desired="stopped"), after(10**6)) == Verdict()


def test_repairs_are_further_and_further_apart_and_after_three_a_person_is_told() -> None:
    its, taken, told = watched("FAILED"), [], None
    for second in range(4 * 3600):
        verdict = judge(its, after(second))
        if verdict.alarm and told is None:
            told = second
        if verdict.step is not Step.NOTHING:
            taken.append(second)
            its = msgspec.structs.replace(its, repairs=its.repairs + 1, repaired_at=after(second))
    assert taken == [10, 70, 370, 1270, 4870, 8470, 12070]
    assert told == 371


def test_a_connection_that_drops_again_and_again_is_told_of() -> None:
    assert judge(watched("WORKING", drops=5), START).alarm is None
    assert judge(watched("WORKING", drops=6), START) == Verdict(alarm=Alarm.FLAPPING)


Answers = dict[Step, list[tuple[int, str]]]


class Day:
    """A day of one session: statuses come by themselves, it is judged every 5 s, each repair is counted."""

    def __init__(self, engine: str, *, paired: bool = True) -> None:
        self.its = watched("WORKING" if paired else "STARTING", engine=engine, paired=paired)
        self.steps: Counter[Step] = Counter()
        self.alarms: set[Alarm] = set()
        self._dropped: deque[datetime] = deque()

    def live(self, happenings: dict[int, str], answers: Answers | None = None) -> "Day":
        """Let statuses come at their seconds; a step is answered by others, some seconds later."""
        coming = dict(happenings)
        for second in range(86_400):
            if status := coming.pop(second, None):
                self._enter(status, after(second))
            if second % 5 == 0:
                for later, answer in (answers or {}).get(self._judged(after(second)), []):
                    coming[second + later] = answer
        return self

    def _judged(self, now: datetime) -> Step:
        if is_steady(self.its, now):
            self.its = msgspec.structs.replace(self.its, repairs=0, repaired_at=None)
        while self._dropped and now - self._dropped[0] >= timedelta(hours=1):
            self._dropped.popleft()
        verdict = judge(msgspec.structs.replace(self.its, drops=len(self._dropped)), now)
        if verdict.alarm:
            self.alarms.add(verdict.alarm)
        if verdict.step is not Step.NOTHING:
            self.steps[verdict.step] += 1
            self.its = msgspec.structs.replace(self.its, repairs=self.its.repairs + 1, repaired_at=now)
        return verdict.step

    def _enter(self, status: str, now: datetime) -> None:
        if self.its.status == "WORKING" and status != "WORKING":
            self._dropped.append(now)
        self.its = msgspec.structs.replace(self.its, status=status, since=now)


def every(seconds: int, *sequence: tuple[int, str]) -> dict[int, str]:
    return {begin + at: status for begin in range(seconds, 86_400, seconds) for at, status in sequence}


WHILE_AWAY = {
    "GOWS": ((0, "STARTING"), (5, "WORKING")),
    "NOWEB": ((2, "STARTING"), (4, "STARTING"), (6, "STARTING"), (8, "WORKING")),
    "WEBJS": ((0, "FAILED"), (2, "STARTING"), (12, "WORKING")),
    "WPP": ((0, "FAILED"), (2, "STARTING"), (12, "WORKING")),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reconnect_every_half_hour_is_nobodys_business(engine: str) -> None:
    day = Day(engine).live(every(1800, *WHILE_AWAY[engine]))
    assert (day.steps, day.alarms) == (Counter(), set())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reconnect_every_five_minutes_is_told_and_left_alone(engine: str) -> None:
    day = Day(engine).live(every(300, *WHILE_AWAY[engine]))
    assert (day.steps, day.alarms) == (Counter(), {Alarm.FLAPPING})


def test_a_restart_that_whatsapp_asks_for_is_not_doubled() -> None:
    """515: the engine reconnects; STOPPED passes by."""
    day = Day("NOWEB").live({1000: "STOPPED", 1004: "STARTING", 1012: "WORKING"})
    assert (day.steps, day.alarms) == (Counter(), set())


@pytest.mark.parametrize("engine", ["GOWS", "NOWEB"])
def test_a_device_removed_on_the_phone_is_tried_a_few_times_and_a_person_is_told(engine: str) -> None:
    """515, then 401."""
    answers = {Step.RESTART: [(1, "STOPPED"), (3, "STARTING"), (8, "FAILED")]}
    day = Day(engine).live({1000: "STARTING", 1005: "FAILED"}, answers)
    assert day.alarms == {Alarm.KEEPS_FAILING}
    assert set(day.steps) == {Step.RESTART}
    assert day.steps[Step.RESTART] <= 4 + 24


@pytest.mark.parametrize("engine", ENGINES)
def test_a_code_that_nobody_scans_is_shown_and_ends(engine: str) -> None:
    codes = {20 * number: "SCAN_QR_CODE" for number in range(6)}
    day = Day(engine, paired=False).live({**codes, 120: "FAILED"})
    assert (day.steps, day.alarms) == (Counter(), {Alarm.PAIRING_EXPIRED})


@pytest.mark.parametrize("engine", ENGINES)
def test_one_failure_costs_one_restart_at_most(engine: str) -> None:
    answers = {Step.RESTART: [(1, "STOPPED"), (3, "STARTING"), (10, "WORKING")]}
    day = Day(engine).live({1000: "FAILED"}, answers)
    assert (day.steps, day.alarms) == (Counter({Step.RESTART: 1}), set())


def test_a_gateway_that_forgot_a_session_gets_it_back_once() -> None:
    day = Day("NOWEB")
    day.its = watched(None, engine="NOWEB")
    day.live({}, {Step.CREATE: [(2, "STARTING"), (6, "WORKING")]})
    assert (day.steps, day.alarms) == (Counter({Step.CREATE: 1}), set())


def test_nothing_ever_logs_out_or_deletes() -> None:
    assert {step.value for step in Step} == {*("nothing", "create", "configure", "start", "restart", "stop")}
