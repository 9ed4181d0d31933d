"""The pages name all there is, and their links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from typing import Final

import pytest

import convert_middleware
from convert_middleware import CookieOptions, Settings, Stats, hooks, testing
from tests.test_docs import PAGES, ROOT

_CODE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(text: str) -> dict[str, set[str]]:
    """Return the names in the second column of every table by those in the first."""
    found = re.findall(r"^\| (`.+?`) \|(.*?)\|", text, re.MULTILINE)
    return {
        name: set(re.findall(r"`(\w+)`", second))
        for first, second in found
        for name in re.findall(r"`(\w+)`", first)
    }


@pytest.mark.parametrize("name", ["README.md", "docs/reference/options.md"])
def test_every_option_has_a_row_in_the_table(name: str) -> None:
    assert {field.name for field in fields(Settings)} - set(rows(page(name))) == set()


def test_every_attribute_of_the_cookie_has_a_row_in_the_table() -> None:
    assert {field.name for field in fields(CookieOptions)} - set(
        rows(page("docs/reference/options.md"))
    ) == set()


def test_every_event_has_a_row_with_all_its_fields() -> None:
    kinds = {
        name: {field.name for field in fields(kind)}
        for name, kind in vars(hooks).items()
        if isinstance(kind, type) and issubclass(kind, hooks.Event) and not kind.__subclasses__()
    }
    assert rows(page("docs/reference/events.md")) == kinds


def test_every_number_of_the_account_has_a_row() -> None:
    assert {field.name for field in fields(Stats)} - set(rows(page("docs/reference/stats.md"))) == set()


def test_every_public_name_is_in_a_reference_page() -> None:
    reference = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md"))
    assert [name for name in convert_middleware.__all__ if name not in reference] == []


def test_all_that_is_there_for_tests_is_on_its_page() -> None:
    names = {name for name in vars(testing.RecordedTracker) if name[0] != "_"} | {"RecordedTracker", "Clock"}
    assert [name for name in names if f"`{name}" not in page("docs/reference/testing.md")] == []


def links() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for target in _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8"))):
            if "://" not in target:
                yield str(path.relative_to(ROOT)), target


@pytest.mark.parametrize(("name", "target"), list(links()))
def test_every_link_between_pages_leads_somewhere(name: str, target: str) -> None:
    file, _, anchor = target.partition("#")
    there = (ROOT / name).parent / file if file else ROOT / name
    assert there.exists()
    if anchor:
        headings = _HEADING.findall(there.read_text(encoding="utf-8"))
        assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_page_is_in_the_index() -> None:
    listed = {target.partition("#")[0] for target in _LINK.findall(page("docs/index.md"))}
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert pages - listed == {"index.md"}


def test_every_room_of_the_house_is_in_the_drawing_and_in_the_table() -> None:
    contract = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"] if layer != "__main__"]
    drawing = re.findall(r"^  (\w+(?: │ \w+)*)", page("docs/explanation/architecture.md"), re.MULTILINE)
    assert [line.split(" │ ") for line in drawing][: len(layers)] == layers
    assert {room for layer in layers for room in layer} == set(rows(page("docs/explanation/architecture.md")))
