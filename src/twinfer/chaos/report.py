"""What a chaos run found, counted by kind of disturbance and by role; and whether all is well."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from twinfer.chaos.judge import Judgement, Verdict
from twinfer.chaos.load import Answer
from twinfer.chaos.plan import Event
from twinfer.chaos.prompts import Question

MAX_SHOWN = 20
"""Bad answers that are kept with all they said."""
UNDISTURBED = ("no event", "")


@dataclass(slots=True)
class Row:
    """Everything of one kind and role.

    Attributes:
        in_flight: requests under way at the moment of the event.
        answers: by verdict, those begun during an event included.
        recovered: streams that the gateway went on with elsewhere.
        slowest_s: from the end of a disturbance until all workers served again.
    """

    events: int = 0
    in_flight: int = 0
    answers: Counter[Verdict] = field(default_factory=Counter)
    recovered: int = 0
    slowest_s: float = 0.0

    def add(self, other: "Row") -> None:
        """Take in another row."""
        self.events += other.events
        self.in_flight += other.in_flight
        self.answers += other.answers
        self.recovered += other.recovered
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(slots=True)
class Report:
    """The run so far.

    Attributes:
        plan: events by number.
        questions: by number.
        rows: by kind and role.
        findings: what must not happen, beside wrong and stuck answers.
        bad: answers that are wrong or stuck.
        refusals: how often which error was given instead of an answer.
        restarts: processes that were killed and came back.
        handed_over: answers whose KV went from one worker to another.
        strict: an error in place of an answer is bad, too.
        interrupted: somebody ended it early.
    """

    plan: tuple[Event, ...]
    questions: tuple[Question, ...]
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    handed_over: int = 0
    strict: bool = False
    interrupted: bool = False

    def row(self, event: Event | None) -> Row:
        """Where an event and its answers are counted."""
        return self.rows.setdefault(UNDISTURBED if event is None else (event.kind.value, event.role), Row())

    def judged(self, answer: Answer, judgement: Judgement) -> None:
        """Count an answer."""
        event = None if answer.event is None else self.plan[answer.event]
        verdict = judgement.verdict
        self.row(event).answers[verdict] += 1
        self.handed_over += answer.heard.transfer_bytes > 0
        if verdict is Verdict.REFUSED:
            self.refusals[judgement.reason] += 1
        if verdict in self.bad_verdicts and len(self.bad) < MAX_SHOWN:
            self.bad.append(
                {
                    "verdict": verdict.value,
                    "reason": judgement.reason,
                    "event": "none" if event is None else str(event),
                    "prompt": self.questions[answer.question].text,
                    "answer": answer.heard.text,
                }
            )

    @property
    def bad_verdicts(self) -> tuple[Verdict, ...]:
        """Those of which there must be none."""
        return (Verdict.WRONG, Verdict.STUCK, Verdict.REFUSED) if self.strict else (Verdict.WRONG, Verdict.STUCK)

    @property
    def total(self) -> Row:
        """All rows together."""
        total = Row()
        for row in self.rows.values():
            total.add(row)
        return total

    @property
    def faulty(self) -> bool:
        """Whether something went wrong."""
        answers = self.total.answers
        return bool(self.findings) or any(answers[verdict] for verdict in self.bad_verdicts)

    @property
    def clean(self) -> bool:
        """Whether something was tried, and nothing went wrong."""
        total = self.total
        right = total.answers[Verdict.RIGHT] + total.answers[Verdict.RIGHT_BY_R7]
        return bool(total.events and total.in_flight and right) and not self.faulty

    @property
    def verdict(self) -> str:
        """All of it in one line."""
        total = self.total
        counts = ", ".join(f"{total.answers[verdict]} {verdict}" for verdict in Verdict if total.answers[verdict])
        said = (
            f"{total.events} of {len(self.plan)} events, {total.in_flight} requests in flight: {counts or 'no answers'}"
        )
        if self.clean:
            return f"CLEAN: {said}; {self.handed_over} handed over, every KV block accounted for"
        what = [f"{total.answers[verdict]} {verdict}" for verdict in self.bad_verdicts if total.answers[verdict]]
        what += [f"{len(self.findings)} findings"] if self.findings else []
        return f"NOT CLEAN ({', '.join(what) or 'nothing was put to the test'}): {said}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "clean": self.clean,
            "interrupted": self.interrupted,
            "verdict": self.verdict,
            "rows": [{"kind": kind, "target": role, **_fields(row)} for (kind, role), row in self.rows.items()],
            "total": _fields(self.total),
            "handed_over": self.handed_over,
            "refusals": dict(self.refusals),
            "restarts": dict(self.restarts),
            "findings": self.findings,
            "bad": self.bad,
            "events": [str(event) for event in self.plan],
        }


def _fields(row: Row) -> dict[str, Any]:
    return {
        "events": row.events,
        "in_flight": row.in_flight,
        **{verdict.value: row.answers[verdict] for verdict in Verdict},
        "recovered": row.recovered,
        "slowest_recovery_s": round(row.slowest_s, 3),
    }
