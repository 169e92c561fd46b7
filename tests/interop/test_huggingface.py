"""Export and import. Oracles: transformers, bit equality, and a message for each mistake."""

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import MODELS, edit_json, same_weights

import bytelm
from bytelm.errors import BytelmError, CheckpointError, ConfigError, RunError
from bytelm.interop import huggingface
from bytelm.interop.blt import refuse_what_the_format_lacks
from bytelm.interop.huggingface import as_run, export_model, import_directory, load_directory
from bytelm.interop.random_models import random_ids
from bytelm.models import (
    BLT,
    BLTConfig,
    ByteModel,
    EntropyLM,
    EntropyLMConfig,
    Ngram,
    NgramConfig,
)
from bytelm.patching import Entropy, Space
from bytelm.training.initial import fingerprint_of
from bytelm.training.loading import load_model
from bytelm.training.settings import RunConfig
from bytelm.vocab import BOS, OFFSET

RECIPES = Path(__file__).parents[2] / "recipes"

TEXT = "A line of text, caf\u00e9 \u6f22\u5b57 \U0001f600, and <|bos|> in it.\n" * 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def models() -> dict[str, ByteModel]:
    """Shared between tests: do not change them."""
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture
def exported(models, tmp_path: Path) -> Path:
    """The directory of a blt; a test may damage it."""
    export_model(models["blt"], tmp_path / "exported")
    return tmp_path / "exported"


@pytest.fixture(scope="module")
def transformers(tmp_path_factory):
    """The library, without progress bars, and with its copies of code in a folder of the tests."""
    import transformers
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    was_shown, was_at = logging.is_progress_bar_enabled(), dynamic_module_utils.HF_MODULES_CACHE
    logging.disable_progress_bar()
    dynamic_module_utils.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("modules"))
    yield transformers
    dynamic_module_utils.HF_MODULES_CACHE = was_at
    if was_shown:
        logging.enable_progress_bar()


def load(transformers, folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_exports_to_equal_logits_and_comes_back_bit_for_bit(
    name, models, transformers, tmp_path
):
    ours, folder = models[name], tmp_path / "out"
    export_model(ours, folder)
    theirs = load(transformers, folder)
    ids = random_ids(3, 2, 150)
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=2e-5)
    theirs.save_pretrained(tmp_path / "back")
    for place in (folder, tmp_path / "back"):
        back = load_directory(place)
        assert type(back) is type(ours)
        assert same_weights(ours, back)
        with torch.no_grad():
            assert torch.equal(ours(ids), back(ids))


@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_of_transformers_is_that_of_a_session(name, models, transformers, tmp_path):
    export_model(models[name], tmp_path / "out")
    theirs = load(transformers, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(TEXT, return_tensors="pt")
    out = theirs.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids.input_ids.shape[1] :]
    session = bytelm.decoding.session.Session(models[name])
    session.push([TEXT.encode()])
    greedy = []
    for _ in range(24):
        greedy.append(int(session.log_probs()[0].argmax()))
        session.push([bytes(greedy[-1:])])
    assert [int(id) - OFFSET for id in out] == greedy


def test_a_byte_gpt_with_rows_padded_on_the_left_computes_what_each_row_does_alone(
    models, transformers, tmp_path
):
    export_model(models["byte-gpt"], tmp_path / "out")
    theirs = load(transformers, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", padding_side="left")
    batch = tokenizer([TEXT, "ab"], return_tensors="pt", padding=True)
    alone = tokenizer("ab", return_tensors="pt")
    with torch.no_grad():
        together = theirs(**batch).logits[1, -3:]
        assert torch.allclose(together, theirs(**alone).logits[0], atol=1e-5)
        loss = theirs(**alone, labels=alone.input_ids).loss
    expected = torch.nn.functional.cross_entropy(
        models["byte-gpt"](alone.input_ids)[0, :-1], alone.input_ids[0, 1:]
    )
    assert torch.allclose(loss, expected, atol=1e-5)


@pytest.mark.parametrize("shards", ["1GB", "100KB"])
def test_a_model_that_transformers_made_is_imported(shards, transformers, tmp_path):
    """Oracle: its own logits. Nothing here was written by this package."""
    torch.manual_seed(0)
    local = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BltConfig(
        encoder_config={**local, "num_key_value_heads": 2, "hidden_size_global": 80},
        decoder_config={**local, "num_hidden_layers": 2, "hidden_size_global": 80},
        global_config={**local, "hidden_size": 80, "num_hidden_layers": 2},
        patcher_config={**local, "num_hidden_layers": 1, "sliding_window": 20},
        encoder_hash_byte_group_vocab=100,
        encoder_hash_byte_group_nb_functions=2,
        local_attention_window_len=30,
        patching_threshold=5.1,
    )
    theirs = transformers.BltForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shards)
    is_sharded = (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    assert is_sharded == (shards == "100KB")
    import_directory(tmp_path / "theirs", tmp_path / "run")
    ours, ids = load_model(tmp_path / "run"), random_ids(0, 3, 90)
    with torch.no_grad():
        assert 0.1 < ours.patch(ids).float().mean() < 0.9
        expected = theirs(ids, use_cache=False).logits
        assert torch.allclose(ours(ids), expected, atol=1e-4)
    export_model(ours, tmp_path / "out")
    exported, saved = (load_directory(tmp_path / name) for name in ("out", "theirs"))
    assert same_weights(exported, saved)
    assert exported.config == saved.config


def test_an_imported_run_has_everything_that_a_trained_one_has(models, exported, tmp_path):
    """Oracle: the model before its export."""
    run = tmp_path / "run"
    config = import_directory(exported, run)
    assert config.patching == models["blt"].patcher
    data = TEXT.encode()
    loaded, own = bytelm.load(run), bytelm.language_model.LanguageModel(models["blt"])
    assert np.array_equal(loaded.patch_starts(data), own.patch_starts(data))
    assert np.allclose(loaded.log_probs(data), own.log_probs(data), atol=1e-4)
    again = bytelm.config.load(type(config), run / "config.json")
    assert again == config
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*.safetensors"))
    import_directory(exported, run)
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*.safetensors")) == before


def test_a_run_of_other_weights_is_not_overwritten(models, exported, tmp_path):
    import_directory(exported, tmp_path / "run")
    export_model(models["entropy-lm"], tmp_path / "other")
    with pytest.raises(RunError, match=r"other settings: .*init\.fingerprint was"):
        import_directory(tmp_path / "other", tmp_path / "run")


def test_half_precision_is_widened_exactly_and_shards_are_read(models, exported, caplog):
    """Oracle: rounding to bfloat16 by torch."""
    weights = load_file(exported / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[:40], "b.safetensors": names[40:]}
    for file, own in parts.items():
        save_file({name: weights[name].bfloat16() for name in own}, exported / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (exported / "model.safetensors.index.json").write_text(json.dumps(index))
    (exported / "model.safetensors").unlink()
    with caplog.at_level("INFO"):
        back = load_directory(exported)
    assert "BF16 are held as float32" in caplog.text
    for name, tensor in models["blt"].state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor.bfloat16().float())


def test_what_init_names_is_a_run_or_an_import_in_the_cache(models, exported, cache):
    run = as_run(exported)
    assert run.parent == cache / "imported"
    assert as_run(run) == run == as_run(exported)
    assert fingerprint_of(bytelm.load(run).model.float()) == fingerprint_of(models["blt"])


# --- what is refused, on the way out ------------------------------------------------------------


def with_patcher(model: BLT, patcher, source="same") -> BLT:
    return BLT(model.config, patcher, model.entropy_model if source == "same" else source)


def test_what_the_format_lacks_is_refused_by_name_before_anything_is_written(models, tmp_path):
    blt = models["blt"]
    counts = Ngram.fit(NgramConfig(order=2), [np.frombuffer(b"abcab" * 9, np.uint8)])
    without = type(blt.config)(**{**vars(blt.config), "ngram_sizes": ()})
    for model, said in [
        (with_patcher(blt, Space(), None), "no a patcher of kind 'space'"),
        (with_patcher(blt, Entropy(relative_threshold=0.5)), "no patching.relative_threshold"),
        (with_patcher(blt, Entropy(threshold=1.0, min_patch_bytes=2)), "min_patch_bytes = 2"),
        (with_patcher(blt, Entropy(threshold=1.0, max_patch_bytes=9)), "max_patch_bytes = 9"),
        (with_patcher(blt, Entropy(threshold=1.0), counts), "bytelm train entropy-full"),
        (BLT(without, blt.patcher, blt.entropy_model), "without hash n-grams"),
        (counts, "an n-gram model is counts"),
    ]:
        with pytest.raises(ConfigError) as caught:
            export_model(model, tmp_path / "out")
        assert said.replace("no a", "no") in str(caught.value).replace("no a", "no")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_exports_but_counts(recipe):
    """The blt recipes promise it; with an entropy LM, which the shipped ones replace by counts."""
    config = bytelm.config.load(RunConfig, recipe).model
    if isinstance(config, BLTConfig):
        source = EntropyLM(EntropyLMConfig(dim=16, n_layers=1))
        with torch.device("meta"):
            model = BLT(config, Entropy(threshold=1.0), source)
        refuse_what_the_format_lacks(model)
    else:
        assert (config.kind == "ngram") == (recipe.stem == "ngram")


def test_the_readme_of_an_export_is_run(models, transformers, tmp_path, capsys):
    """Oracle: it says what `generate` gives."""
    for name in ("blt", "entropy-lm", "byte-gpt"):
        folder = tmp_path / name
        export_model(models[name], folder)
        code = (folder / "README.md").read_text().split("```")[1].removeprefix("python")
        run = compile(code, "README.md", "exec")
        exec(run, {"DIR": str(folder)})
        assert capsys.readouterr().out.startswith("A prompt")


def test_an_interrupted_export_leaves_nothing(models, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface, "tokenizer_json", stop)
    with pytest.raises(KeyboardInterrupt):
        export_model(models["blt"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_weights_that_are_no_numbers_are_not_exported(value, tmp_path):
    model = MODELS["entropy-lm"]()
    with torch.no_grad():
        model.norm.weight[2] = float(value)
    with pytest.raises(CheckpointError, match=r"'norm\.weight' holds NaN or infinity"):
        export_model(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_mode_that_the_umask_asks_for(models, tmp_path):
    before = os.umask(0o027)
    try:
        export_model(models["byte-gpt"], tmp_path / "out")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o640}


def test_a_directory_with_something_in_it_is_left_alone(models, tmp_path):
    (tmp_path / "out").mkdir()
    export_model(models["byte-gpt"], tmp_path / "out")
    with pytest.raises(CheckpointError, match="not empty"):
        export_model(models["byte-gpt"], tmp_path / "out")


# --- what is refused, on the way in -------------------------------------------------------------

BAD_CONFIGS = {
    "model_type is 'llama', expected 'blt'": {"model_type": "llama"},
    "patching_mode is 'space', expected 'entropy'": {"patching_mode": "space"},
    "patch_in_forward is False, expected True": {"patch_in_forward": False},
    "patch_in_forward is None, expected True": {"patch_in_forward": None},
    "patching_threshold must be a finite number, got None": {"patching_threshold": None},
    "max_patch_length is 8": {"max_patch_length": 8},
    "patch_size is null": {"patch_size": None},
    "vocab_size is 256, expected 260": {"vocab_size": 256},
    "monotonicity is True": {"monotonicity": True},
    "patching_threshold_add is 0.5": {"patching_threshold_add": 0.5},
    "the key 'new_feature' (7) is unknown": {"new_feature": 7},
    "tie_word_embeddings is True": {"tie_word_embeddings": True},
    "threshold is 7.0 nats": {"patching_threshold": 7.0},
    "must be a finite number, got 'high'": {"patching_threshold": "high"},
    "patching_threshold must be a finite number, got 1000": {"patching_threshold": 10**400},
    "patching_threshold must be a finite number, got inf": {"patching_threshold": float("inf")},
    "rope_theta must be a finite number": {
        "encoder_config.rope_parameters": {"rope_theta": -(10**400)}
    },
    "encoder_config: max_position_embeddings must be a whole number from 1 to 16,777,216, got "
    "16777217": {"encoder_config.max_position_embeddings": 2**24 + 1},
    "patcher_config: max_position_embeddings must be a whole number from 1 to 16,777,216": {
        "patcher_config.max_position_embeddings": 10**12
    },
    "cross_attn_k is 2, elsewhere it is 3": {"cross_attn_k": 3, "encoder_config.cross_attn_k": 2},
    "encoder_config: hidden_act is 'gelu'": {"encoder_config.hidden_act": "gelu"},
    "decoder_config: rms_norm_eps is 1e-06": {"decoder_config.rms_norm_eps": 1e-6},
    "global_config: dropout is 0.1": {"global_config.dropout": 0.1},
    "patcher_config: sliding_window is null": {"patcher_config.sliding_window": None},
    "patcher_config: vocab_size is 256": {"patcher_config.vocab_size": 256},
    "scaled rotary positions": {
        "global_config.rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}
    },
    "the rotary bases differ": {"global_config.rope_parameters": {"rope_theta": 1e4}},
    "rope_scaling: rope_type is 'linear'": {
        "encoder_config.rope_scaling": {"rope_type": "linear", "factor": 2.0}
    },
    "encoder_config.hidden_size is 64, decoder_config.hidden_size 48": {
        "encoder_config.hidden_size": 64,
        "encoder_config.head_dim": None,
    },
    "cross_attn_all_layers is true with more than one layer": {
        "encoder_config.cross_attn_all_layers": True,
        "encoder_config.num_hidden_layers": 2,
    },
    "num_hidden_layers must be a whole number from 1 to 2,147,483,647, got -1": {
        "decoder_config.num_hidden_layers": -1
    },
    "at most 1000, got 100000000": {"decoder_config.num_hidden_layers": 10**8},
    "head_dim is 99": {"global_config.head_dim": 99},
    "expected a table, got 'big'": {"global_config": "big"},
    "has shape": {"encoder_config.intermediate_size": 7},
    "weights are missing, the first 'model.global_transformer.layers.": {
        "global_config.num_hidden_layers": 9
    },
    "encoder_hash_byte_group_size has 100 items": {"encoder_hash_byte_group_size": [3] * 100},
    "the configuration asks for (2000000000": {"encoder_hash_byte_group_vocab": 2_000_000_000},
}


@pytest.mark.parametrize("said", BAD_CONFIGS)
def test_a_foreign_configuration_is_refused_by_name(said, exported):
    def change(config):
        for name, value in BAD_CONFIGS[said].items():
            *tables, key = name.split(".")
            (config[tables[0]] if tables else config)[key] = value

    edit_json(exported / "config.json", change)
    with pytest.raises(BytelmError) as caught:
        load_directory(exported)
    assert said in str(caught.value)


def test_what_the_converter_of_the_release_wrote_is_understood(models, exported):
    """Oracle: keys that do not change the arithmetic, in the spelling of version 4."""

    def change(config):
        config.update(monotonicity=False, patching_threshold_add=0.0, pm_size=0)
        config.update(realtime_patching=True, patching_device="cuda")
        for name in ("encoder_config", "decoder_config", "global_config", "patcher_config"):
            part = config[name]
            part["rope_theta"] = part.pop("rope_parameters")["rope_theta"]
            part["rope_scaling"] = {"rope_type": "default"}
            part["norm_eps"] = part.pop("rms_norm_eps")
            part["attn_impl"] = "sdpa"

    edit_json(exported / "config.json", change)
    assert same_weights(load_directory(exported), models["blt"])


def test_without_a_window_a_model_sees_its_whole_context(exported):
    edit_json(
        exported / "config.json", lambda config: config.update(local_attention_window_len=None)
    )
    config = load_directory(exported).config
    assert config.window == config.context_bytes


def damage(folder, name):
    weights = load_file(folder / "model.safetensors")
    first = "model.patcher.norm.weight"
    match name:
        case "missing":
            del weights[first]
        case "unknown":
            weights["model.patcher.extra.weight"] = weights[first].clone()
        case "shape":
            weights[first] = weights[first][:-1].clone()
        case "dtype":
            weights[first] = weights[first].double()
        case "nan" | "inf":
            weights[first][3] = float(name)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "1 weights are missing, the first 'model.patcher.norm.weight'"),
        ("unknown", "1 weights are unknown to the configuration, the first 'model.patcher.extra"),
        ("shape", "'model.patcher.norm.weight' has shape (15,), the configuration asks for (16,)"),
        ("dtype", "'model.patcher.norm.weight' is F64, expected F32, F16, BF16"),
        ("nan", "'model.patcher.norm.weight' holds NaN or infinity"),
        ("inf", "'model.patcher.norm.weight' holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(name, said, exported):
    damage(exported, name)
    with pytest.raises(CheckpointError) as caught:
        load_directory(exported)
    assert said in str(caught.value)


def as_index(mapped):
    return json.dumps({"weight_map": mapped})


def test_damaged_directories_are_refused_by_name(exported, tmp_path):
    def message(change):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported, folder)
        change(folder)
        with pytest.raises(BytelmError) as caught:
            load_directory(folder)
        return str(caught.value)

    def pickled(folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    def index(text):
        def change(folder):
            (folder / "model.safetensors").rename(folder / "a.safetensors")
            (folder / "model.safetensors.index.json").write_text(text)

        return change

    def cut(folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-100])

    def endless(folder):
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to("/dev/zero")

    def twice(folder):
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace("{", '{"model_type": "llama",', 1))

    for change, said in [
        (pickled, "holds pickled weights"),
        (cut, "model.safetensors cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights, expected"),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**5), "is no valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds a list"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no 'model_type'"),
        (lambda folder: (folder / "config.json").write_bytes(b" " * (1 << 24 | 1)), "at most"),
        (endless, "config.json is no regular file"),
        (twice, "config.json is no valid JSON (the key 'model_type' is there twice)"),
        (index("{}"), "no table 'weight_map'"),
        (index(as_index({"x": "../a.safetensors"})), "said to be in '../a.safetensors'"),
        (index(as_index({"x": "/etc/passwd"})), "expected the name of a .safetensors file"),
        (index(as_index({"x": "weights.bin"})), "expected the name of a .safetensors file"),
        (index(as_index({"x": 3})), "said to be in 3"),
        (index(as_index({"x": "a.safetensors", "y": "b.safetensors"})), "lacks 1 of 2 shards"),
        (index(as_index({"lm_head.weight": "a.safetensors"})), "not in model.safetensors.index"),
    ]:
        assert said in message(change)
    with pytest.raises(CheckpointError, match="is no directory"):
        load_directory(tmp_path / "gone")


def test_an_unknown_model_is_refused_before_its_weights_are_opened(tmp_path):
    """There are none."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="model_type is 'llama', expected 'blt'"):
        load_directory(tmp_path)


@pytest.mark.parametrize("name", ["entropy-lm", "byte-gpt"])
def test_a_context_that_no_machine_holds_is_refused(name, models, tmp_path):
    export_model(models[name], tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    edit_json(config, lambda own: own.update(max_position_embeddings=2**24 + 1))
    with pytest.raises(ConfigError, match="from 1 to 16,777,216, got 16777217"):
        load_directory(tmp_path / "out")
    edit_json(config, lambda own: own.update(max_position_embeddings=2**24))
    assert load_directory(tmp_path / "out").config.context_bytes == 2**24


def test_a_run_needs_no_import(exported, tmp_path):
    import_directory(exported, tmp_path / "run")
    with pytest.raises(ConfigError, match="a run of bytelm, which needs no import"):
        load_directory(tmp_path / "run")


def test_a_mistral_that_is_no_entropy_lm_is_refused_by_name(models, tmp_path):
    export_model(models["entropy-lm"], tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    edit_json(config, lambda own: own.update(attention_dropout=0.1, vocab_size=32000))
    with pytest.raises(ConfigError, match=r"vocab_size is 32000, expected 260"):
        load_directory(tmp_path / "out")
    edit_json(config, lambda own: own.update(vocab_size=260))
    with pytest.raises(ConfigError, match=r"attention_dropout is 0.1"):
        load_directory(tmp_path / "out")
    edit_json(config, lambda own: (own.update(attention_dropout=0.0), own.pop("sliding_window")))
    with pytest.raises(ConfigError, match="sliding_window is not stated, which means 4096"):
        load_directory(tmp_path / "out")


# --- Meta's release -----------------------------------------------------------------------------

RELEASED_NAMES = [
    ("model.", ""),
    (".self_attn.", ".attention."),
    (".mlp.", ".feed_forward."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".embed_tokens.", ".tok_embeddings."),
    (".k_norm.", ".cross_attn_norm_kv."),
    (".q_norm.", ".cross_attn_norm_q."),
    ("gate_proj", "w1"),
    ("down_proj", "w2"),
    ("up_proj", "w3"),
    ("q_proj", "wq"),
    ("k_proj", "wk"),
    ("v_proj", "wv"),
    ("o_proj", "wo"),
]
"""The map of the public converter, read from right to left and written down a second time here."""


def release(model: BLT, exported, folder) -> None:
    """Lay a model out as Meta's release is."""
    weights = load_file(exported / "model.safetensors")
    main, entropy = {}, {}
    for name, tensor in weights.items():
        if name.startswith("model.patcher."):
            own, target = name.replace("model.patcher.", "x.").replace("lm_head", "output"), entropy
        else:
            own, target = name.replace("lm_head", "local_decoder.output"), main
        for theirs, released in RELEASED_NAMES:
            own = own.replace(theirs, released)
        target[own.removeprefix("x.")] = tensor.clone()
    tables = main.pop("encoder_hash_tok_embedding.weight").split(model.config.num_buckets)
    main |= {f"encoder_hash_tok_embedding.{i}.weight": t.clone() for i, t in enumerate(tables)}
    main["global_transformer.rope_embeddings.freqs_cis"] = torch.zeros(3)
    (folder / "entropy_model").mkdir(parents=True)
    save_file(main, folder / "model.safetensors")
    torch.save({"model": entropy}, folder / "entropy_model" / "consolidated.pth")
    config, source = model.config, model.entropy_model.config
    args = {
        "vocab_size": 260,
        "dim_local_encoder": config.dim,
        "dim_local_decoder": config.dim,
        "dim_global": config.dim_global,
        "n_heads_local_encoder": config.n_heads,
        "n_heads_local_decoder": config.n_heads_decoder or config.n_heads,
        "n_heads_global": config.n_heads_global,
        "n_kv_heads": config.n_kv_heads,
        "n_kv_heads_global": config.n_kv_heads_global,
        "n_layers_local_encoder": config.n_layers_encoder,
        "n_layers_local_decoder": config.n_layers_decoder,
        "n_layers_global": config.n_layers_global,
        "cross_attn_k": config.cross_attn_k,
        "cross_attn_all_layers_decoder": config.cross_attention_every_layer,
        "local_attention_window_len": config.window,
        "encoder_hash_byte_group_size": list(config.ngram_sizes),
        "encoder_hash_byte_group_vocab": config.num_buckets,
        "encoder_hash_byte_group_nb_functions": config.num_hash_functions,
        "rope_theta": config.rope_theta,
        "max_encoder_seq_length": config.context_bytes,
    }
    entropy_args = {
        "dim": source.dim,
        "n_layers": source.n_layers,
        "n_heads": source.n_heads,
        "n_kv_heads": source.n_kv_heads,
        "max_seqlen": source.context_bytes,
        "vocab_size": 260,
        "sliding_window": source.window,
    }
    params = {
        "entropy_model": entropy_args,
        "data": {"patcher_args": {"threshold": model.patcher.threshold}},
    }
    (folder / "config.json").write_text(json.dumps({"args": args}))
    (folder / "entropy_model" / "params.json").write_text(json.dumps(params))


def test_the_layout_of_the_release_is_read(models, exported, tmp_path):
    """Oracle: the same model from the export; the map is written down twice."""
    release(models["blt"], exported, tmp_path / "released")
    back = load_directory(tmp_path / "released")
    assert same_weights(back, models["blt"])
    ids = random_ids(1, 1, 80)
    with torch.no_grad():
        assert torch.equal(back(ids), models["blt"](ids))
    assert as_run(tmp_path / "released") == as_run(exported)


def test_the_release_with_files_of_transformers_in_it_is_read(models, exported, tmp_path):
    """A config.json of transformers, and an entropy model without pickle."""
    folder = tmp_path / "released"
    release(models["blt"], exported, folder)
    shutil.copy(exported / "config.json", folder)
    assert same_weights(load_directory(folder), models["blt"])
    held = torch.load(folder / "entropy_model" / "consolidated.pth", weights_only=True)["model"]
    save_file(held, folder / "entropy_model" / "model.safetensors")
    (folder / "entropy_model" / "consolidated.pth").unlink()
    assert same_weights(load_directory(folder), models["blt"])


class Intruder:
    """Would make a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_release_that_is_not_what_it_should_be_is_refused(models, exported, tmp_path):
    folder = tmp_path / "released"
    release(models["blt"], exported, folder)
    entropy = folder / "entropy_model"
    edit_json(folder / "config.json", lambda c: c["args"].update(cross_attn_init_by_pooling=False))
    with pytest.raises(ConfigError, match="cross_attn_init_by_pooling is False"):
        load_directory(folder)
    edit_json(folder / "config.json", lambda c: c["args"].pop("cross_attn_init_by_pooling"))
    edit_json(entropy / "params.json", lambda c: c["data"]["patcher_args"].clear())
    with pytest.raises(ConfigError, match="states no patching threshold"):
        load_directory(folder)
    torch.save({"model": Intruder(tmp_path / "ran")}, entropy / "consolidated.pth")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load_directory(folder)
    assert not (tmp_path / "ran").exists()
    (entropy / "consolidated.pth").unlink()
    with pytest.raises(CheckpointError, match=r"has no entropy_model/consolidated.pth"):
        load_directory(folder)


def test_an_entropy_lm_is_exact_far_past_its_window(models, transformers, tmp_path):
    """Oracle: Mistral's own sliding window, self included."""
    ours = models["entropy-lm"]
    assert isinstance(ours, EntropyLM)
    export_model(ours, tmp_path / "out")
    theirs = load(transformers, tmp_path / "out")
    ids = torch.randint(OFFSET, 260, (1, 20 * ours.config.window))
    ids[:, 0] = BOS
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=2e-5)
