"""From a generation's tokens to pieces, blocks and an ending, with real models' ways of writing."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from starlette.datastructures import Headers, QueryParams
from tokenizers import Tokenizer as Backend

from tests.gateway import templates
from tests.gateway.house import EOS, byte_level_backend, caller
from twinfer.core.clock import ManualClock
from twinfer.core.config import Config
from twinfer.core.errors import EngineFailure, WorkerLost
from twinfer.core.tokens import FinishReason, Token
from twinfer.gateway.answers import Answer, Answers, Ending, Piece, join_text
from twinfer.gateway.exchange import Call, Context
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.prepare import Asked, Options, prepare
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.content import Delta, ReasoningBlock, TextBlock, ToolCallBlock, join_deltas
from twinfer.gateway.text.conversation import Calling, Conversation, RawPrompt, Tool, say
from twinfer.gateway.text.formats.harmony import Harmony
from twinfer.gateway.text.manner import detect
from twinfer.gateway.text.tokenizer import Tokenizer

CALL = Call("id", caller("acme"), "", Headers(), QueryParams(), b"", secure=False, arrived_s=0.0)
ASKED = Conversation((say("user", "hi"),), (Tool("f", "", {}),))
FORCED = replace(ASKED, calling=Calling.ANY, tool="f")
F_CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def served(model: ServedModel, template: str, special: Sequence[str] = ()) -> ServedModel:
    """The model with another template, and the manner that goes with it."""
    backend: Backend = byte_level_backend()
    backend.add_special_tokens(list(special))
    manner = detect("auto", "auto", template, names_think=False)
    tokenizer, source = Tokenizer(backend), ChatTemplate(template, {"bos_token": "", "eos_token": ""})
    return replace(model, tokenizer=tokenizer, template=source, manner=manner, max_context_tokens=4000)


async def answered(
    model: ServedModel, asked: Asked, text: str, finish: FinishReason | None = FinishReason.STOP, size: int = 3
) -> tuple[Answer, list[Delta], str]:
    """The answer to a request whose model writes this text, all deltas of its pieces, and their text."""
    ids = [*model.tokenizer.encode(text, add_special_tokens=False), EOS]
    batches = [ids[start : start + size] for start in range(0, len(ids), size)]
    dispatcher = FakeDispatcher(lambda request: Script(batches, finish or FinishReason.STOP))
    context = Context(Config(), ModelRegistry([model]), dispatcher, Meter(), ManualClock())
    choice = (await prepare(CALL, context, asked)).choices[0]
    answer = Answer(choice.request, dispatcher.start(choice.request, None), choice.reading(), choice.fills_context)
    pieces: list[Piece] = []
    answers = Answers([answer])
    while taken := await answers.take():
        pieces += taken
    return answer, [delta for piece in pieces for delta in piece.deltas], join_text(pieces)


@pytest.mark.parametrize(
    ("template", "special", "text"),
    [
        (templates.HERMES, (), f"<think>\nHm.\n</think>\n\nI look.\n{F_CALL}\n{F_CALL}"),
        (templates.LLAMA3, ("<|python_tag|>",), '<|python_tag|>{"name": "f", "parameters": {"a": 1}};'),
        (templates.MISTRAL, ("[TOOL_CALLS]",), 'I look.[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]'),
        (
            templates.HARMONY,
            Harmony().marks,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
            '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}',
        ),
    ],
)
async def test_every_family_s_answers_come_apart(
    model: ServedModel, template: str, special: Sequence[str], text: str
) -> None:
    """Thoughts, text and calls as blocks; what was streamed is what there is; every call has a name of its own."""
    asked = Asked(model.id, ASKED, call_prefix="tooluse_")
    answer, deltas, shown = await answered(served(model, template, special), asked, text)
    assert answer.blocks == join_deltas(deltas)
    assert answer.text == shown == ("I look." if "I look." in text else "")
    assert [ReasoningBlock("Hm.")] * ("Hm." in text) == [b for b in answer.blocks if isinstance(b, ReasoningBlock)]
    calls = [block for block in answer.blocks if isinstance(block, ToolCallBlock)]
    assert [("f", {"a": 1})] * max(1, text.count("</tool_call>")) == [(c.name, json.loads(c.json)) for c in calls]
    assert len({call.id for call in calls}) == len(calls)
    assert all(call.id.startswith("tooluse_") and len(call.id) == 30 for call in calls)
    assert (answer.ending, answer.num_reasoning_tokens > 0) == (Ending.TOOL_CALLS, "Hm." in text)


async def test_a_raw_prompt_is_answered_in_text(model: ServedModel) -> None:
    """Its client parses for itself."""
    hermes = served(model, templates.HERMES)
    answer, _, shown = await answered(hermes, Asked(model.id, RawPrompt("hi")), f"<think>a</think>{F_CALL}")
    assert (answer.blocks, shown) == ((TextBlock(f"<think>a</think>{F_CALL}"),), answer.text)
    assert (answer.ending, answer.num_reasoning_tokens) == (Ending.END_OF_TURN, 0)


async def test_a_forced_call_needs_its_arguments_only(model: ServedModel) -> None:
    """The opening is the prompt's, the arguments' tokens are the answer's; after the one named call all is over."""
    hermes = served(model, templates.HERMES)
    written = ' {"a": 1}}'
    answer, deltas, _ = await answered(hermes, Asked(model.id, FORCED), f"{written}\n</tool_call>{F_CALL}", size=1)
    (block,) = answer.blocks
    assert isinstance(block, ToolCallBlock)
    assert ((block,), "f", '{"a":1}') == (join_deltas(deltas), block.name, block.json)
    assert answer.ending is Ending.TOOL_CALLS
    length = len(hermes.tokenizer.encode(written, add_special_tokens=False))
    limited, _, _ = await answered(hermes, Asked(model.id, FORCED, Options(max_tokens=length)), written)
    assert (length, length, Ending.TOOL_CALLS) == (answer.num_tokens, limited.num_tokens, limited.ending)
    free = hermes.prompt(replace(FORCED, calling=Calling.AUTO))
    assert free == answer.request.prompt[: len(free)]


@pytest.mark.parametrize(
    ("text", "limit", "ending"), [(" I won't.", 100, Ending.BROKEN_CALL), (' {"a": 12345', 3, Ending.MAX_TOKENS)]
)
async def test_a_forced_call_that_is_none_says_so(model: ServedModel, text: str, limit: int, ending: Ending) -> None:
    """What was written is shown as text, and the ending tells why."""
    asked = Asked(model.id, FORCED, Options(max_tokens=limit))
    answer, _, shown = await answered(served(model, templates.HERMES), asked, text)
    assert (answer.ending, answer.text) == (ending, shown)
    assert shown
    assert text.startswith(shown)


async def test_a_call_shown_while_it_is_written_may_break(model: ServedModel) -> None:
    """The ending says so; where the limit cut it off, that is why."""
    hermes = served(model, templates.HERMES)
    asked = Asked(model.id, ASKED, whole_calls=False)
    good, _, _ = await answered(hermes, asked, F_CALL, size=1)
    assert (Ending.TOOL_CALLS, 1) == (good.ending, len(good.blocks))
    bad, _, shown = await answered(hermes, asked, F_CALL.replace("1", "one") + " and more", size=1)
    assert (Ending.BROKEN_CALL, "") == (bad.ending, shown)
    limited = Asked(model.id, ASKED, Options(max_tokens=40), whole_calls=False)
    cut, _, _ = await answered(hermes, limited, F_CALL.replace("1", '"' + "x" * 99 + '"'), size=1)
    assert (Ending.MAX_TOKENS, 1) == (cut.ending, len(cut.blocks))


async def test_calls_need_not_be_parallel(model: ServedModel) -> None:
    """Then the first one ends the answer, and what follows is not paid for."""
    hermes = served(model, templates.HERMES)
    one, _, _ = await answered(hermes, Asked(model.id, replace(ASKED, parallel=False)), F_CALL * 2, size=1)
    two, _, _ = await answered(hermes, Asked(model.id, ASKED), F_CALL * 2, size=1)
    assert (1, 2) == (len(one.blocks), len(two.blocks))
    assert one.num_tokens < two.num_tokens / 2


async def test_stop_strings_and_limits_name_themselves(model: ServedModel) -> None:
    """Whatever else there was before."""
    hermes = served(model, templates.HERMES)
    stopped, _, _ = await answered(hermes, Asked(model.id, ASKED, Options(stop=("END",))), f"{F_CALL}\naEND")
    assert (Ending.STOP_STRING, "END", "a") == (stopped.ending, stopped.stop_string, stopped.text)
    cut, _, _ = await answered(hermes, Asked(model.id, ASKED, Options(max_tokens=5)), F_CALL)
    assert (Ending.MAX_TOKENS, True) == (cut.ending, F_CALL.startswith(cut.text))


async def test_an_answer_without_a_last_token_is_lost(model: ServedModel) -> None:
    """An incomplete answer never looks whole."""
    hermes = served(model, templates.HERMES)
    dispatcher = FakeDispatcher(lambda request: Script([[70], [71]], FinishReason.STOP))
    context = Context(Config(), ModelRegistry([hermes]), dispatcher, Meter(), ManualClock())
    choice = (await prepare(CALL, context, Asked(model.id, ASKED))).choices[0]
    answer = Answer(choice.request, dispatcher.start(choice.request, None), choice.reading(), False)
    with pytest.raises(WorkerLost, match="broke off"):
        answer.finish()


async def started(model: ServedModel, *scripts: Script) -> tuple[Answers, FakeDispatcher]:
    """One answer for each script, read side by side."""
    waiting = iter(scripts)
    dispatcher = FakeDispatcher(lambda request: next(waiting))
    context = Context(Config(), ModelRegistry([model]), dispatcher, Meter(), ManualClock())
    work = await prepare(CALL, context, Asked(model.id, RawPrompt("hi"), Options(n=len(scripts), stop=("END",))))
    return Answers(
        [
            Answer(choice.request, dispatcher.start(choice.request, None), choice.reading(), False)
            for choice in work.choices
        ]
    ), dispatcher


async def test_what_came_before_a_failure_is_taken_first(model: ServedModel) -> None:
    """Of all answers; the error follows, as often as it is asked for."""
    hello = model.tokenizer.encode("Hello", add_special_tokens=False)
    answers, _ = await started(model, Script([hello, [EOS]]), Script([hello], failure=EngineFailure("broken")))
    pieces = await answers.take()
    assert ["Hello", "Hello"] == [join_text([p for p in pieces if p.choice == choice]) for choice in (0, 1)]
    for _ in range(2):
        with pytest.raises(EngineFailure, match="broken"):
            await answers.take()


async def test_a_take_that_is_called_off_loses_nothing(model: ServedModel) -> None:
    """The next one has it all, in one piece."""
    gate, hello = asyncio.Event(), model.tokenizer.encode("Hello", add_special_tokens=False)
    answers, _ = await started(model, Script([hello, hello, [EOS]], gates={0: gate}))
    waiting = asyncio.create_task(answers.take())
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    await asyncio.wait({waiting})
    pieces = await answers.take()
    assert (True, "HelloHello") == (waiting.cancelled(), join_text(pieces))
    assert (Ending.END_OF_TURN, ()) == (pieces[-1].ending, await answers.take())


async def test_an_answer_that_is_whole_is_closed_and_not_read_on(model: ServedModel) -> None:
    """A stop string ends it; tokens that were under way do not count."""
    ids = model.tokenizer.encode("aEND", add_special_tokens=False)
    answers, dispatcher = await started(model, Script([ids, ids]))
    await answers.complete()
    (answer,) = answers.all
    answer.generation.arrivals.push([Token(answer.request.request_id, 99, ids[0])])
    assert () == await answers.take()
    assert ("a", Ending.STOP_STRING, len(ids)) == (answer.text, answer.ending, answer.num_tokens)
    assert dispatcher.generations[0].closed.is_set()
