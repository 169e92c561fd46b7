"""Oracles: torch's own attention with the same weights, the formula of a layer, plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytelm.nn.encoder_decoder import (
    DecoderLayer,
    DecoderTurns,
    EncoderLayer,
    Groups,
    HeadAttention,
    KeysValues,
)
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rope import rotations
from bytelm.nn.transformer import SwiGLU
from conftest import randomize_

DIM, HEADS, EXACT = 12, 3, 1e-12

ROWS, LENGTH, SEEN = 2, 5, 7


def torch_attention(layer: HeadAttention) -> nn.MultiheadAttention:
    """Torch's own, with our weights."""
    own = nn.MultiheadAttention(DIM, HEADS, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        parts = (layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight)
        own.in_proj_weight.copy_(torch.cat(parts))
        own.out_proj.weight.copy_(layer.o_proj.weight)
    return own


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_mask() -> Tensor:
    """Of two rows, the second one shorter."""
    mask = torch.ones(ROWS, 1, 1, SEEN, dtype=torch.bool)
    mask[1, ..., 4:] = False
    return mask


def random_layer(layer: nn.Module, seed: int = 0) -> nn.Module:
    randomize_(layer, seed)
    return layer.double().eval()


def attention() -> HeadAttention:
    layer = random_layer(HeadAttention(DIM, HEADS))
    assert isinstance(layer, HeadAttention)
    return layer


def feed_forward(norm: RMSNorm, ffn: SwiGLU, x: Tensor) -> Tensor:
    gate, up, down = (one.weight for one in (ffn.gate_proj, ffn.up_proj, ffn.down_proj))
    x = normed(norm, x)
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def normed(norm: RMSNorm, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight


def test_attention_to_a_memory_is_torchs() -> None:
    layer, x, memory, mask = attention(), draw(ROWS, LENGTH, DIM), draw(ROWS, SEEN, DIM), a_mask()
    got = layer.mix(layer.queries(x), layer.keys_values(memory), mask=mask)
    hidden = ~mask[:, 0, 0]
    expected, _ = torch_attention(layer)(x, memory, memory, key_padding_mask=hidden)
    torch.testing.assert_close(got, expected, atol=EXACT, rtol=0)


def test_causal_attention_is_torchs() -> None:
    layer, x = attention(), draw(ROWS, LENGTH, DIM)
    got = layer.mix(layer.queries(x), layer.keys_values(x), is_causal=True)
    later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    expected, _ = torch_attention(layer)(x, x, x, attn_mask=later)
    torch.testing.assert_close(got, expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("groups", [1, 3])
def test_heads_are_turned_by_the_positions_of_their_group(groups: int) -> None:
    """Oracle: a loop over rows, positions, heads and pairs."""
    layer, x = attention(), draw(ROWS, LENGTH, DIM)
    positions = torch.randint(0, 50, (groups, ROWS * LENGTH)).numpy()
    turns = [rotations(one, DIM // HEADS, 10_000.0, x) for one in positions]
    got = layer.keys_values(x, turns)
    queries = layer.queries(x, turns)
    values = F.linear(x, layer.v_proj.weight).unflatten(2, (HEADS, -1)).transpose(1, 2)
    torch.testing.assert_close(got.values, values, atol=EXACT, rtol=0)
    for found, projection in ((got.keys, layer.k_proj), (queries, layer.q_proj)):
        plain = F.linear(x, projection.weight)
        for row in range(ROWS):
            for at in range(LENGTH):
                for head in range(HEADS):
                    place = positions[head * groups // HEADS, row * LENGTH + at]
                    own = plain[row, at, head * 4 : head * 4 + 4].tolist()
                    expected = turned(own, int(place))
                    torch.testing.assert_close(found[row, head, at].tolist(), expected)


def turned(x: list[float], position: int) -> list[float]:
    out = []
    for pair in range(len(x) // 2):
        angle = position * 10_000.0 ** (-2 * pair / len(x))
        a, b = x[2 * pair : 2 * pair + 2]
        cosine, sine = math.cos(angle), math.sin(angle)
        out += [a * cosine - b * sine, a * sine + b * cosine]
    return out


def test_equal_heads_and_groups_of_positions_see_distances_alone() -> None:
    """The point of rotary positions: moving queries and keys together changes nothing."""
    layer, x, memory = attention(), draw(ROWS, LENGTH, DIM), draw(ROWS, SEEN, DIM)

    def mixed(moved: int) -> Tensor:
        asked, seen = (
            rotations((torch.arange(n) + moved).repeat(ROWS).numpy(), DIM // HEADS, 100.0, x)
            for n in (LENGTH, SEEN)
        )
        return layer.mix(layer.queries(x, (asked,)), layer.keys_values(memory, (seen,)))

    torch.testing.assert_close(mixed(0), mixed(31), atol=1e-10, rtol=0)


def test_an_encoder_layer_is_its_formula() -> None:
    layer = random_layer(EncoderLayer(DIM, n_heads=HEADS, ffn_dim=16, dropout=0.5))
    assert isinstance(layer, EncoderLayer)
    x, mask = draw(ROWS, SEEN, DIM), a_mask()
    own = torch_attention(layer.attention)
    y = normed(layer.attention_norm, x)
    expected = x + own(y, y, y, key_padding_mask=~mask[:, 0, 0])[0]
    expected = expected + feed_forward(layer.ffn_norm, layer.ffn, expected)
    torch.testing.assert_close(layer(x, mask), expected, atol=EXACT, rtol=0)


def decoder_layer() -> DecoderLayer:
    layer = random_layer(DecoderLayer(DIM, n_heads=HEADS, ffn_dim=16, dropout=0.5))
    assert isinstance(layer, DecoderLayer)
    return layer


def test_a_decoder_layer_is_its_formula() -> None:
    layer, mask = decoder_layer(), a_mask()
    x, memory = draw(ROWS, LENGTH, DIM), draw(ROWS, SEEN, DIM, seed=1)
    later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    y = normed(layer.attention_norm, x)
    expected = x + torch_attention(layer.attention)(y, y, y, attn_mask=later)[0]
    y = normed(layer.cross_norm, expected)
    looked, _ = torch_attention(layer.cross)(y, memory, memory, key_padding_mask=~mask[:, 0, 0])
    expected = expected + looked
    expected = expected + feed_forward(layer.ffn_norm, layer.ffn, expected)
    got = layer(x, layer.cross.keys_values(memory), mask, DecoderTurns())
    torch.testing.assert_close(got, expected, atol=EXACT, rtol=0)


def test_steps_of_a_decoder_layer_equal_its_forward() -> None:
    layer, mask = decoder_layer(), a_mask()
    x, memory = draw(ROWS, LENGTH, DIM), layer.cross.keys_values(draw(ROWS, SEEN, DIM, seed=1))

    def turns(places: Tensor) -> DecoderTurns:
        one = rotations(places.repeat(ROWS).numpy(), DIM // HEADS, 100.0, x)
        return DecoderTurns(own=(one,), cross=(one, one))

    expected = layer(x, memory, mask, turns(torch.arange(LENGTH)))
    room = torch.full((2, ROWS, HEADS, LENGTH, DIM // HEADS), math.nan, dtype=torch.float64)
    for at in range(LENGTH):
        cache = KeysValues(room[0, :, :, : at + 1], room[1, :, :, : at + 1])
        with torch.no_grad():
            own = turns(torch.tensor([at]))
            alone = Groups(torch.arange(ROWS), widest=1)
            got = layer.step(x[:, at : at + 1], cache, memory, mask, alone, own)
        torch.testing.assert_close(got, expected[:, at : at + 1], atol=EXACT, rtol=0)


def test_rows_that_share_a_memory_see_what_each_would_alone() -> None:
    """Two rows look at the second memory and one at the first, in mixed order; a cell is empty."""
    attention, mask = decoder_layer().cross, a_mask()
    memory = attention.keys_values(draw(ROWS, SEEN, DIM, seed=1))
    asked = attention.queries(draw(3, 1, DIM, seed=2))
    owners, cells = torch.tensor([1, 0, 1]), torch.tensor([3, 0, 2])
    copies = KeysValues(memory.keys[owners], memory.values[owners])
    expected = attention.mix(asked, copies, mask=mask[owners])
    got = attention.mix_by_group(asked, memory, mask=mask, groups=Groups(cells, widest=2))
    torch.testing.assert_close(got, expected, atol=EXACT, rtol=0)


def test_hidden_positions_get_no_gradient() -> None:
    layer = random_layer(EncoderLayer(DIM, n_heads=HEADS, ffn_dim=16, dropout=0.0))
    x = draw(ROWS, SEEN, DIM).requires_grad_()
    layer(x, a_mask())[1, :4].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[1, :4] != 0).any(1).all()
    assert not x.grad[1, 4:].any()
    assert not x.grad[0].any()
