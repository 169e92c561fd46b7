"""The rules that keep the package readable. Oracle: the source itself, read with `ast`."""

import ast
import dataclasses
import difflib
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import bytelm
from bytelm import config
from bytelm.training.settings import RunConfig

PACKAGE = Path(bytelm.__file__).parent
RECIPES = Path(__file__).parents[1] / "recipes"
GOLDEN_FLAGS = Path(__file__).parent / "golden" / "flags.txt"

LAYERS = [
    {"errors", "files", "config"},
    {"nn"},
    {"vocab"},
    {"data"},
    {"patching"},
    {"models"},
    {"decoding"},
    {"evaluation"},
    {"training"},
    {"compression"},
    {"interop"},
    {"language_model"},
    {"apps"},
    {"experiments"},
    {"cli"},
]
FREE = {"__init__", "__main__"}
"""The front page."""

LONGEST_FUNCTION = 80
LONGEST_COPY = 40

FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file.relative_to(PACKAGE): ast.parse(file.read_text()) for file in FILES}


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts of this package that a file imports: `nn` for `from bytelm.nn.rope import ...`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "bytelm":
            names += [f"bytelm.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.append(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("bytelm.")}


def test_imports_only_point_up():
    wrong = []
    for path, tree in TREES.items():
        own = path.parts[0].removesuffix(".py")
        if own in FREE:
            continue
        for part in imported_parts(tree):
            # A verb may use the public front page, which is no layer.
            public = own == "cli" and part == "load"
            if not public and layer(part) > layer(own):
                wrong.append(f"{path} imports bytelm.{part}")
    assert wrong == []


def test_every_part_has_its_place_in_the_order():
    parts = {path.parts[0].removesuffix(".py") for path in TREES} - FREE
    assert parts <= set().union(*LAYERS)


def test_no_drawer_files():
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [path for path in TREES if drawers & set(path.with_suffix("").parts)] == []


def test_every_file_says_what_it_is():
    assert [path for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_functions_are_short():
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_nothing_unpickles_or_evaluates_text():
    wrong = []
    for path, tree in TREES.items():
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        wrong += [f"{path}: {name}" for name in modules if name in {"pickle", "shelve", "marshal"}]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            safe = any(word.arg == "weights_only" for word in node.keywords)
            if name in {"eval", "exec"} or (name == "torch.load" and not safe):
                wrong.append(f"{path}:{node.lineno} {name}")
    assert wrong == []


def test_no_deprecated_amp():
    names = {
        f"{path}: {dotted(node)}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and dotted(node).startswith("torch.cuda.amp")
    }
    assert names == set()


def test_only_the_command_line_prints():
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in TREES.items()
        if path.parts[0] != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    assert wrong == []


def code_lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]


def test_no_file_holds_a_copy_of_another():
    lines = {file: code_lines(file) for file in FILES}
    copies = []
    for index, first in enumerate(FILES):
        for second in FILES[index + 1 :]:
            # Too few lines in common to hold a copy that long: skip the slow comparison.
            if len(set(lines[first]) & set(lines[second])) < LONGEST_COPY // 2:
                continue
            matcher = difflib.SequenceMatcher(None, lines[first], lines[second], autojunk=False)
            size = matcher.find_longest_match().size
            if size > LONGEST_COPY:
                copies.append(f"{first.name} and {second.name}: {size} lines")
    assert copies == []


def test_the_command_line_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'rich', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, bytelm.cli; sys.exit(bytelm.cli.main(['--help']) or len({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- configuration -----------------------------------------------------------------------------


def configs(cls: type, seen: set[type]) -> set[type]:
    """Every dataclass that a recipe can reach."""
    if cls in seen:
        return seen
    seen.add(cls)
    for hint in typing.get_type_hints(cls).values():
        for member in (hint, *typing.get_args(hint)):
            if isinstance(member, type) and dataclasses.is_dataclass(member):
                configs(member, seen)
    return seen


def recipe_configs() -> list[type]:
    return sorted(configs(RunConfig, set()), key=lambda cls: cls.__qualname__)


def names_read() -> set[str]:
    """Names that occur as `something.name` where it is read, anywhere in the package."""
    return {
        node.attr
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_config_field_is_read_somewhere():
    read = names_read()
    unread = [
        f"{cls.__qualname__}.{field.name}"
        for cls in recipe_configs()
        for field in dataclasses.fields(cls)
        if field.name not in read
    ]
    assert unread == []


def test_every_config_is_frozen_and_every_field_documented():
    wrong = []
    for cls in recipe_configs():
        if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            wrong.append(f"{cls.__qualname__} is not frozen")
        docs = config.field_docs(cls)
        wrong += [
            f"{cls.__qualname__}.{field.name} has no docstring"
            for field in dataclasses.fields(cls)
            if not docs.get(field.name)
        ]
    assert wrong == []


def test_a_table_left_out_equals_an_empty_table():
    """A field's default is its class's own, so that setting one key moves no other."""
    wrong = []
    for cls in recipe_configs():
        for field in dataclasses.fields(cls):
            made = field.default_factory is not dataclasses.MISSING
            default = field.default_factory() if made else field.default  # type: ignore[misc]
            if dataclasses.is_dataclass(default) and type(default)() != default:
                wrong.append(f"{cls.__qualname__}.{field.name}")
    assert wrong == []


def test_the_flags_are_those_of_the_golden_file():
    flags = "".join(f"{name}\n" for name in sorted({s.name for s in config.describe(RunConfig)}))
    if os.environ.get("BYTELM_WRITE_GOLDEN"):
        GOLDEN_FLAGS.parent.mkdir(exist_ok=True)
        GOLDEN_FLAGS.write_text(flags)
    assert flags == GOLDEN_FLAGS.read_text(), "`make golden` rewrites it; review the difference"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_comes_back(recipe):
    loaded = config.load(RunConfig, recipe)
    assert config.from_dict(RunConfig, config.to_dict(loaded)) == loaded
