"""The verdict over a run: clean only if something was tried and nothing went wrong."""

from twinfer.chaos.judge import Heard, Judgement, Verdict
from twinfer.chaos.load import Answer
from twinfer.chaos.plan import GATEWAY, Event, Kind
from twinfer.chaos.prompts import make_questions
from twinfer.chaos.report import Report

EVENTS = (
    Event(Kind.KILL, "decode", "decode-1", 0.5, 0.0),
    Event(Kind.LONG_PAUSE, GATEWAY, GATEWAY, 0.5, 3.0),
)


Judged = tuple[Answer, Judgement]


def answer(verdict: Verdict, event: int | None = 0, transfer_bytes: int = 0) -> Judged:
    """Judged so, met by this event."""
    return Answer(0, event, heard=Heard(transfer_bytes=transfer_bytes)), Judgement(verdict, "because")


def a_report(*answers: Judged, events: int = 2, in_flight: int = 5) -> Report:
    """After these answers."""
    report = Report(EVENTS, make_questions(2, 0))
    for event in EVENTS[:events]:
        report.row(event).events += 1
        report.row(event).in_flight += in_flight
    for each in answers:
        report.judged(*each)
    return report


def test_answers_are_counted_where_they_belong() -> None:
    """By kind and role, and in their sum."""
    report = a_report(
        answer(Verdict.RIGHT, 0, 64),
        answer(Verdict.RIGHT_BY_R7, 0),
        answer(Verdict.REFUSED, 1),
        answer(Verdict.BROKEN, 1),
        answer(Verdict.RIGHT, None),
    )
    assert report.rows["kill", "decode"].answers == {Verdict.RIGHT: 1, Verdict.RIGHT_BY_R7: 1}
    assert report.rows["long pause", "gateway"].answers == {Verdict.REFUSED: 1, Verdict.BROKEN: 1}
    assert report.rows["no event", ""].answers == {Verdict.RIGHT: 1}
    assert (report.total.events, report.total.in_flight, report.handed_over) == (2, 10, 1)
    assert report.refusals == {"because": 1}
    assert report.clean
    assert report.verdict == (
        "CLEAN: 2 of 2 events, 10 requests in flight: 2 right, 1 right by R7, 1 refused, 1 broken; "
        "1 handed over, every KV block accounted for"
    )


def test_one_bad_answer_is_enough() -> None:
    """It is kept with its reason and the event."""
    for verdict in (Verdict.WRONG, Verdict.STUCK):
        report = a_report(*[answer(Verdict.RIGHT)] * 1000, answer(verdict))
        assert not report.clean
        assert report.verdict.startswith(f"NOT CLEAN (1 {verdict}): 2 of 2 events")
        assert [(bad["verdict"], bad["reason"], bad["event"]) for bad in report.bad] == [
            (verdict.value, "because", "kill decode-1")
        ]


def test_a_strict_report_takes_no_excuses() -> None:
    """A refusal is a bad answer then, and kept like one."""
    report = a_report(answer(Verdict.RIGHT))
    report.strict = True
    assert report.clean
    report.judged(*answer(Verdict.REFUSED))
    assert report.verdict.startswith("NOT CLEAN (1 refused)")
    assert [bad["verdict"] for bad in report.bad] == ["refused"]


def test_a_finding_is_enough() -> None:
    """A block that is lost, a process that died by itself."""
    report = a_report(answer(Verdict.RIGHT))
    report.findings.append("decode-0 has 3 blocks in no state")
    assert report.verdict.startswith("NOT CLEAN (1 findings)")


def test_nothing_tried_is_not_clean() -> None:
    """No event, nobody in flight, or no right answer proves nothing."""
    assert not a_report(answer(Verdict.RIGHT), events=0).clean
    assert not a_report(answer(Verdict.RIGHT), in_flight=0).clean
    assert not a_report(answer(Verdict.REFUSED)).clean


def test_json_says_it_all() -> None:
    """For programs: rows, total, verdict, and what was found."""
    said = a_report(answer(Verdict.WRONG)).as_json()
    assert (said["clean"], said["total"]["wrong"], said["rows"][0]["target"]) == (False, 1, "decode")
    assert said["bad"][0]["prompt"] == make_questions(2, 0)[0].text
