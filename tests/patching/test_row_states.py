"""Oracle: `patch_starts` of each document alone."""

import numpy as np
import pytest
from test_stream import PATCHERS

from bytelm.patching import RowStates, StartRule, patch_starts

LETTERS = [b"ab ", b"the cat.\n\xc3\xa4", bytes(range(256))]


class Documents:
    """Random documents read side by side, and where their patches start."""

    def __init__(self, rule: StartRule, rows: int, seed: int) -> None:
        self.rule, self.states = rule, RowStates(rule, rows)
        self.rng = np.random.default_rng(seed)
        self.texts = [self._document() for _ in range(rows)]
        self.read = [0] * rows
        self.begin(list(range(rows)))

    def _document(self) -> tuple[np.ndarray, np.ndarray]:
        """Bytes, and entropies of the prediction of each, nats."""
        letters = np.frombuffer(LETTERS[self.rng.integers(3)], np.uint8)
        data = self.rng.choice(letters, 400)
        return data, self.rng.uniform(0, 3, 400).astype(np.float32)

    def begin(self, slots: list[int]) -> None:
        for slot in slots:
            self.texts[slot], self.read[slot] = self._document(), 0
        first = np.array([self.texts[slot][1][0] for slot in slots])
        self.states.begin(np.array(slots), first if self.rule.needs_entropies else None)

    def following(self, slot: int, count: int) -> tuple[np.ndarray, np.ndarray, list[bool]]:
        """The next bytes, the entropies after each of them, and whether a patch starts there."""
        (data, entropies), begin = self.texts[slot], self.read[slot]
        end = self.read[slot] = begin + count
        starts = patch_starts(self.rule, data[: end + 1], entropies[: end + 1])
        return data[begin:end], entropies[begin + 1 : end + 1], starts[begin + 1 :].tolist()

    def step(self) -> None:
        """One byte of some rows."""
        slots = self.rng.permutation(len(self.read))[: self.rng.integers(1, len(self.read) + 1)]
        parts = [self.following(slot, 1) for slot in slots.tolist()]
        values = np.concatenate([part[0] for part in parts])
        entropies = np.concatenate([part[1] for part in parts])
        starts = self.states.step(slots, values, entropies if self.rule.needs_entropies else None)
        assert starts.tolist() == [part[2][0] for part in parts]

    def piece(self, slot: int, count: int) -> None:
        """Some bytes of one row."""
        data, entropies, expected = self.following(slot, count)
        starts = self.states.decide(slot, data, entropies if self.rule.needs_entropies else None)
        assert starts.tolist() == expected

    def rearrange(self) -> None:
        """Begin, fork, or put back a row."""
        slot, other = self.rng.integers(len(self.read), size=2).tolist()
        match self.rng.integers(3):
            case 0:
                self.begin([slot])
            case 1:
                sources = self.rng.integers(len(self.read), size=self.rng.integers(1, 5)).tolist()
                self.states.select(sources)
                self.texts = [self.texts[source] for source in sources]
                self.read = [self.read[source] for source in sources]
            case _:
                saved, read, text = self.states.save(slot), self.read[slot], self.texts[slot]
                self.piece(slot, 5)
                self.states.restore(other, saved)
                self.read[other], self.texts[other] = read, text


@pytest.mark.parametrize("rule", PATCHERS, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_rows_decide_as_their_documents_alone(rule: StartRule, seed: int) -> None:
    documents = Documents(rule, 3, seed)
    for _ in range(120):
        match documents.rng.choice(["step", "step", "step", "piece", "rearrange"]):
            case "step":
                documents.step()
            case "piece":
                slot = int(documents.rng.integers(len(documents.read)))
                documents.piece(slot, int(documents.rng.integers(0, 9)))
            case _:
                documents.rearrange()
        if max(documents.read) > 380:
            documents.begin(list(range(len(documents.read))))


@pytest.mark.parametrize("rule", [rule for rule in PATCHERS if rule.needs_entropies], ids=repr)
def test_entropies_that_cannot_be_used_are_refused(rule: StartRule) -> None:
    states, slots = RowStates(rule, 2), np.arange(2)
    states.begin(slots, np.ones(2, np.float32))
    values = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="needs entropies, got None"):
        states.step(slots, values, None)
    with pytest.raises(ValueError, match="not a number"):
        states.step(slots, values, np.array([1, np.nan], np.float32))
