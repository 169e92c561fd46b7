"""Where in the input each character of a target comes from, for tasks that only move characters.

Which of the rules holds is found from the pairs themselves, so that it is known for anybody's file
too.
"""

from collections.abc import Sequence
from itertools import accumulate

Sources = list[int | None]
"""For each character of a target the place of its character in the input; None for a new one."""


def source_bytes(pairs: Sequence[tuple[str, str]]) -> list[Sources] | None:
    """Find the byte that each character of each target comes from.

    Args:
        pairs: Inputs and targets.

    Returns:
        For each pair and character of its target the offset in bytes of its source in the input,
        None for a character that is in no input. None if no rule holds for all pairs.

    """
    for rule in (_reversed, _words_reversed, _spelled, _kept):
        found = [_checked(rule(text, target), text, target) for text, target in pairs]
        if pairs and all(sources is not None for sources in found):
            return [
                _in_bytes(sources, text)
                for sources, (text, _) in zip(found, pairs, strict=True)
                if sources is not None
            ]
    return None


def _reversed(text: str, _: str) -> Sources:
    return [*reversed(range(len(text)))]


def _words_reversed(text: str, _: str) -> Sources:
    sources: Sources = []
    end = len(text)
    for word in reversed(text.split(" ")):
        sources += [*range(end - len(word), end)]
        end -= len(word) + 1
        # The space before the word follows it now.
        sources += [end] if end >= 0 else []
    return sources


def _spelled(text: str, _: str) -> Sources:
    """Hyphens between the letters of each word."""
    sources: Sources = []
    for place, character in enumerate(text):
        if sources and character != " " and text[place - 1] != " ":
            sources.append(None)
        sources.append(place)
    return sources


def _kept(text: str, target: str) -> Sources:
    """Characters left out, and all others in their order."""
    sources: Sources = []
    place = -1
    for character in target:
        place = text.find(character, place + 1)
        if place < 0:
            return []
        sources.append(place)
    return sources


def _checked(sources: Sources, text: str, target: str) -> Sources | None:
    """The sources if they explain the target."""
    if len(sources) != len(target):
        return None
    is_right = all(
        place is None or text[place] == character
        for place, character in zip(sources, target, strict=True)
    )
    return sources if is_right else None


def _in_bytes(sources: Sources, text: str) -> Sources:
    offsets = [0, *accumulate(len(character.encode()) for character in text)]
    return [None if place is None else offsets[place] for place in sources]
