"""Oracle: plain masked attention over whole rows, which are kept as lists of keys and values."""

import numpy as np
import pytest
import torch

from bytelm.nn.kv_cache import (
    SLACK,
    SMALLEST,
    Cache,
    GrowingCache,
    LayerCache,
    WindowCache,
)

HEADS, GROUPS, WIDTH, LAYERS = 6, 2, 4, 2
WINDOWS = [None, 1, 2, 5, 200]


def make(window: int | None, rows: int, dtype: torch.dtype = torch.float64) -> Cache:
    sizes = {
        "n_layers": LAYERS,
        "n_kv_heads": GROUPS,
        "head_dim": WIDTH,
        "like": torch.zeros(0, dtype=dtype),
    }
    return (
        GrowingCache(rows, **sizes) if window is None else WindowCache(rows, window=window, **sizes)
    )


class Plain:
    """Rows of a cache as everything that they ever read."""

    def __init__(self, cache: Cache, window: int | None, dtype: torch.dtype, seed: int) -> None:
        self.cache, self.window, self.dtype = cache, window, dtype
        self.rng = np.random.default_rng(seed)
        self.rows = [self._nothing() for _ in cache.positions]

    def _nothing(self) -> np.ndarray:
        """float `[2, L, layers, G, K]`: keys and values."""
        return np.zeros((2, 0, LAYERS, GROUPS, WIDTH))

    def read(self, counts: list[int], slots: list[int], *, how: str) -> None:
        """Read random positions by `how`, and compare what they attend to."""
        shape, chosen = (sum(counts), LAYERS, HEADS), np.array(slots)
        q = self._draw(*shape)
        new = self._draw(2, shape[0], LAYERS, GROUPS)
        got = (
            self._numpy(q, new, counts, chosen)
            if how == "numpy"
            else self._torch(q, new, counts, chosen)
        )
        expected, ends = [], np.cumsum(counts)
        for slot, begin, end in zip(slots, ends - counts, ends, strict=True):
            self.rows[slot] = np.concatenate((self.rows[slot], new[:, begin:end]), axis=1)
            for at in range(begin, end):
                stop = self.rows[slot].shape[1] - (end - 1 - at)
                expected.append(self._attend(q[at], self.rows[slot][:, :stop]))
        error = 1e-12 if self.dtype == torch.float64 else 2e-6
        np.testing.assert_allclose(got, np.stack(expected), atol=error, rtol=0)
        assert self.cache.positions.tolist() == [row.shape[1] for row in self.rows]

    def read_all(self, slot: int, count: int, how: str) -> None:
        """Positions of one row as one piece, or step by step."""
        for size in [1] * count if how == "steps" else [count]:
            self.read([size], [slot], how="numpy" if how == "steps" else how)

    def _draw(self, *shape: int) -> np.ndarray:
        """Numbers that the cache's precision has."""
        drawn = torch.from_numpy(self.rng.normal(size=(*shape, WIDTH)))
        return drawn.to(self.dtype).double().numpy()

    def _torch(
        self, q: np.ndarray, new: np.ndarray, counts: list[int], slots: np.ndarray
    ) -> np.ndarray:
        rows = self.cache.rows(np.array(counts), slots)
        self.cache.begin(rows)
        outs = []
        for layer in range(LAYERS):
            parts = (torch.from_numpy(x[:, layer]).to(self.dtype) for x in (q, *new))
            outs.append(LayerCache(self.cache, layer).attend(rows, *parts).numpy())
        return np.stack(outs, axis=1)

    def _numpy(
        self, q: np.ndarray, new: np.ndarray, counts: list[int], slots: np.ndarray
    ) -> np.ndarray:
        if sum(counts) == len(counts):
            self.cache.begin_step(slots)
            attend = self.cache.attend_step
        else:
            self.cache.begin_piece(int(slots[0]), counts[0])
            attend = self.cache.attend_piece
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        outs = [attend(n, *(x[:, n].astype(kind) for x in (q, *new))) for n in range(LAYERS)]
        return np.stack(outs, axis=1).reshape(len(q), LAYERS, HEADS, WIDTH)

    def _attend(self, q: np.ndarray, row: np.ndarray) -> np.ndarray:
        """`[layers, H, K]` of the last position of a row, `[2, L, layers, G, K]`."""
        seen = row if self.window is None else row[:, -self.window :]
        keys, values = np.repeat(seen, HEADS // GROUPS, axis=3)
        scores = np.einsum("nhk,lnhk->lnh", q, keys) / WIDTH**0.5
        weights = np.exp(scores - scores.max(0))
        return np.einsum("lnh,lnhk->nhk", weights / weights.sum(0), values)

    def some_rows(self) -> list[int]:
        """Distinct slots, at least one, in any order."""
        count = int(self.rng.integers(1, len(self.rows) + 1))
        return self.rng.permutation(len(self.rows))[:count].tolist()

    def change(self) -> None:
        """Do one thing that a session may do, at random."""
        slot = int(self.rng.integers(len(self.rows)))
        match self.rng.choice(["step", "step", "numpy", "numpy", "pieces", "piece", "other"]):
            case "step":
                slots = self.some_rows()
                self.read([1] * len(slots), slots, how="torch")
            case "numpy":
                slots = self.some_rows()
                self.read([1] * len(slots), slots, how="numpy")
            case "pieces":
                slots = self.some_rows()
                most = int(self.rng.choice([3, 40, 300]))
                counts = self.rng.integers(1, most, len(slots)).tolist()
                self.read(counts, slots, how="torch")
            case "piece":
                self.read([int(self.rng.integers(2, SLACK + 1))], [slot], how="numpy")
            case "other":
                self.rearrange(slot)

    def rearrange(self, slot: int) -> None:
        match self.rng.choice(["clear", "select", "put back", "take back"]):
            case "clear":
                self.cache.clear(slot)
                self.rows[slot] = self._nothing()
            case "select":
                sources = self.rng.integers(len(self.rows), size=self.rng.integers(1, 5)).tolist()
                self.cache.select(sources)
                self.rows = [self.rows[source] for source in sources]
            case "put back":
                saved, row = self.cache.save(slot), self.rows[slot]
                self.read([int(self.rng.integers(1, 150))], [slot], how="torch")
                other = int(self.rng.integers(len(self.rows)))
                self.cache.restore(other, saved)
                self.rows[other] = row
            case "take back":
                count = int(self.rng.integers(2, SLACK + 1))
                if isinstance(self.cache, WindowCache):
                    self.cache.reserve(slot, count)
                before = self.rows[slot].shape[1]
                self.read_all(slot, count, str(self.rng.choice(["torch", "numpy", "steps"])))
                back = int(self.rng.integers(1, count + 1))
                self.cache.rewind(slot, back)
                self.rows[slot] = self.rows[slot][:, : before + count - back]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("dtype", "seed"), [(torch.float64, 0), (torch.float64, 1), (torch.float32, 2)]
)
def test_rows_read_in_any_way_attend_as_whole_rows(
    window: int | None, dtype: torch.dtype, seed: int
) -> None:
    """Steps and pieces, torch and NumPy, forks, snapshots, rewinds: in any order."""
    with torch.inference_mode():
        plain = Plain(make(window, 3, dtype), window, dtype, seed)
        for _ in range(100):
            plain.change()


@pytest.mark.parametrize("window", [1, 2, 5, 200])
@pytest.mark.parametrize("how", ["torch", "numpy"])
def test_windows_are_moved_when_they_are_full_and_take_no_more_memory(
    window: int, how: str
) -> None:
    with torch.inference_mode():
        plain = Plain(make(window, 2), window, torch.float64, seed=0)
        plain.read([window + 9], [1], how="torch")
        for _ in range(window + 3 * SLACK):
            plain.read([1, 1], [0, 1], how=how)
        cache = plain.cache
        assert isinstance(cache, WindowCache)
        assert cache._keys[0].shape[2] <= window - 1 + SLACK
        kept = cache.save(0).keys[0].shape[1]
        assert window - 1 <= kept <= window - 1 + SLACK


@pytest.mark.parametrize("window", [2, 70])
def test_all_that_was_reserved_can_be_forgotten_wherever_the_window_stands(window: int) -> None:
    with torch.inference_mode():
        plain = Plain(make(window, 1), window, torch.float64, seed=3)
        cache = plain.cache
        assert isinstance(cache, WindowCache)
        for begin in range(1, 2 * SLACK, 7):
            plain.read([7], [0], how="torch")
            cache.reserve(0, SLACK)
            before = plain.rows[0]
            plain.read_all(0, SLACK, ["steps", "numpy", "torch"][begin % 3])
            cache.rewind(0, SLACK)
            plain.rows[0] = before
            plain.read([1], [0], how="numpy")


def test_more_than_the_slack_cannot_be_reserved() -> None:
    cache = make(5, 1)
    assert isinstance(cache, WindowCache)
    with pytest.raises(ValueError, match=f"at most {SLACK} positions can be reserved, got"):
        cache.reserve(0, SLACK + 1)


def test_a_short_row_takes_no_memory_for_a_long_one() -> None:
    with torch.inference_mode():
        plain = Plain(make(None, 3), None, torch.float64, seed=0)
        plain.read([3, 2], [0, 1], how="torch")
        cache = plain.cache
        assert isinstance(cache, GrowingCache)
        before = [buffer.data_ptr() for buffer in cache._buffers[0]]
        plain.read([700], [1], how="torch")
        for _ in range(9):
            plain.read([1, 1], [0, 1], how="numpy")
        assert [buffer.data_ptr() for buffer in cache._buffers[0]] == before
        sizes = [row[0].shape[2] for row in cache._buffers]
        assert sizes[0] == SMALLEST
        assert sizes[1] >= 711
        assert sizes[2] == 0
        cache.clear(1)
        assert cache._buffers[1][0].numel() == 0


def test_a_saved_row_is_not_changed_by_what_is_read_after_it() -> None:
    with torch.inference_mode():
        for window in WINDOWS:
            plain = Plain(make(window, 1), window, torch.float64, seed=0)
            plain.read([30], [0], how="torch")
            saved = plain.cache.save(0)
            copies = [part.clone() for part in (*saved.keys, *saved.values)]
            plain.read([150], [0], how="torch")
            plain.cache.restore(0, saved)
            plain.rows[0] = plain.rows[0][:, :30]
            plain.read([5], [0], how="numpy")
            parts = (*saved.keys, *saved.values)
            assert all(a.equal(b) for a, b in zip(parts, copies, strict=True))
