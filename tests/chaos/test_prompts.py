"""Questions: the same for the same seed, all different, short and long."""

from twinfer.chaos.prompts import MAX_OUTPUT, MIN_OUTPUT, make_questions


def test_questions() -> None:
    """From one function to a dozen, ending in the middle of one."""
    questions = make_questions(24, 5)
    assert questions == make_questions(24, 5)
    assert questions != make_questions(24, 6)
    assert len({question.text for question in questions}) == 24
    assert (questions[0].text.count("def "), questions[-1].text.count("def ")) == (2, 13)
    assert all(question.text.endswith(":\n    ") for question in questions)
    assert all(MIN_OUTPUT <= question.max_tokens <= MAX_OUTPUT for question in questions)
    assert sum(question.ignore_eos for question in questions) == 12
    assert len(make_questions(1, 0)) == 1
