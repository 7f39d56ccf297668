"""What README, CONTRIBUTING and docs/ tell people to type exists as they write it."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from data_utils.real.download import sources
from jsws_lib.cli.main import app
from tools import make as entry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def commands(start):
    """(page, words) of every command line in a shell block or in `backticks`."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.S | re.M)
        lines = "\n".join(blocks).replace("\\\n", " ").split("\n")
        lines += re.findall(rf"`({start} [^`]+)`", text.replace("\n", " "))
        for line in lines:
            line = re.sub(r" #.*| > \S+", "", line).strip().removeprefix("!")  # on Colab
            for part in re.split(r" && ", line):
                if part.startswith(f"{start} ") and "$" not in part and "..." not in part:
                    found.append((page.name, part))
    return sorted(set(found))


LAUNCHED = [
    (page, "jsws " + line.split(" -m jsws_lib.cli ")[1])
    for start in ("accelerate", "torchrun")
    for page, line in commands(start)
    if " -m jsws_lib.cli " in line
]


def test_there_are_commands_to_look_at():
    assert len(commands("jsws")) > 20 and len(commands("make")) > 6
    assert len(commands("python -m tools.make")) > 2
    assert "CONTRIBUTING.md" in {page for page, _ in commands("jsws")}
    assert {"from_download_to_table.md", "many_gpus.md"} <= {page for page, _ in LAUNCHED}


@pytest.mark.parametrize(("page", "line"), commands("jsws") + LAUNCHED)
def test_jsws_knows_its_words(page, line, tmp_path, monkeypatch):
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or words == ["--help"], line
    given = [word for word in words if word.startswith("--")]
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    assert set(given) <= options | {"--help"}, line
    if len(words) > 1:  # not `jsws ablate` in running text, which names the command only
        command.make_context("jsws", words, resilient_parsing=False)


@pytest.mark.parametrize(("page", "line"), commands("make"))
def test_make_knows_its_targets(page, line):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.M)
    names = [word for word in shlex.split(line)[1:] if "=" not in word]
    assert names and set(names) <= set(targets), line


@pytest.mark.parametrize(("page", "line"), commands("python -m tools.make"))
def test_python_knows_its_words(page, line):
    _, _, _, word, *rest = shlex.split(line)
    assert re.search(rf"^python -m tools.make {word}\b", entry.USAGE, re.M), line
    if word == "test":
        assert all((ROOT / name).exists() for name in rest if "/" in name), line


def test_the_page_for_colab_knows_the_size_of_the_download():
    page = (ROOT / "docs" / "colab.md").read_text(encoding="utf-8")
    names = re.search(r"^ *!jsws data download ((?:[A-Z0-9-]+ )+)", page, re.M)[1].split()
    total = sum(sources()[name].gigabytes for name in names)
    assert len(names) == 4 and f"{total:.1f} GB of archives" in page
