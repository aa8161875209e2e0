"""What of a conversation comes before its cache points, as conversations that a template can render."""

import dataclasses
from collections.abc import Iterator, Sequence

from twinfer.gateway.text.conversation import CachePoint, Conversation, Message, say

_NOBODY_SAYS = "\0"
"""Stands for the user's turn, which many templates insist on, and begins like no turn."""


def beginnings(conversation: Conversation) -> Iterator[tuple[Conversation, float]]:
    """Each beginning that is to be kept and for how many seconds, the shortest first.

    A template may put anything behind one, such as the answer's opening: the prompt's beginning is what texts share.
    """
    system = tuple(message for message in conversation.messages if message.role == "system")
    if conversation.keep_tools_s:
        yield _ending(conversation, (*system, say("user", _NOBODY_SAYS))), conversation.keep_tools_s
    for index, message in enumerate(conversation.messages):
        for number, part in enumerate(message.parts):
            if isinstance(part, CachePoint):
                before = (*conversation.messages[:index], Message(message.role, message.parts[:number]))
                turn = () if message.role != "system" else (say("user", _NOBODY_SAYS),)
                yield _ending(conversation, (*before, *turn)), part.ttl_s


def shared_length(left: Sequence[object], right: Sequence[object]) -> int:
    """How many elements both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (ours, theirs) in pairs if ours != theirs), min(len(left), len(right)))


def _ending(conversation: Conversation, messages: tuple[Message, ...]) -> Conversation:
    return dataclasses.replace(conversation, messages=messages)
