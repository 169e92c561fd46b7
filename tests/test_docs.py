"""Commands and links in the documents are real. Oracle: the command line's own parsers."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from bytelm import cli
from bytelm.cli.arguments import load_config
from bytelm.training.run import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(
    {
        line.split("  #")[0].removeprefix("$ ").strip()
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith("$ bytelm ")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command: str) -> None:
    verb, *words = shlex.split(command.replace(" PATH", " somewhere"))[1:]
    module = importlib.import_module(f"bytelm.cli.{verb}")
    parser = cli._Parser(prog=verb, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    args = cli._parse(parser, words)
    if verb == "train":
        load_config(RunConfig, args)


def test_documents_have_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
