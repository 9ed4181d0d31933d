"""Every sample in the documentation runs: the blocks of one page in order, in one module of their own.

A block whose first line is a comment with the name of a file is saved under that name as well, as readers do,
so that later blocks can import it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from tests.servers import TrackingServer

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE: Final = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>```+)python(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_FILE: Final = re.compile(r"# (\w+)\.py\n")
_INFO: Final = {"": True, "no-run": False}  # what may stand behind "python": whether the sample is run


@dataclass(frozen=True, slots=True)
class Sample:
    """One block of Python; ``line`` is that of its first line of code."""

    page: Path
    line: int
    code: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def play(self, module: ModuleType) -> None:
        """Compile the sample and run it; an error tells its place in the page."""
        above = "\n" * (self.line - 1)  # so that tracebacks show the page's own lines
        try:
            code = compile(above + self.code, str(self.page), "exec", dont_inherit=True)
            if self.runs:
                exec(code, vars(module))
        except BaseException as error:
            error.add_note(f"in the sample at {self.page}:{self._line_of(error)}")
            raise

    def _line_of(self, error: BaseException) -> int:
        if isinstance(error, SyntaxError) and error.filename == str(self.page):
            return error.lineno or self.line
        line, step = self.line, error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == str(self.page):
                line = step.tb_lineno
            step = step.tb_next
        return line


def samples_of(page: Path) -> list[Sample]:
    """Return the samples of a page in the order they stand there."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _FENCE.finditer(text):
        line = text.count("\n", 0, block.start("code")) + 1
        info = block["info"].strip()
        assert info in _INFO, f"{page}:{line - 1}: {info!r} is not one of {list(_INFO)}"
        found.append(Sample(page, line, textwrap.dedent(block["code"]), _INFO[info]))
    return found


def run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sample")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where types look up their annotations
    for sample in samples_of(page):
        if name := _FILE.match(sample.code):
            Path(f"{name[1]}.py").write_text(sample.code, encoding="utf-8")
            monkeypatch.syspath_prepend(Path.cwd())
            monkeypatch.delitem(sys.modules, name[1], raising=False)
        sample.play(module)


def test_the_readme_is_among_the_pages() -> None:
    assert PAGES[0].is_file()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_samples_of_a_page_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tracking_server: TrackingServer
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVERT_SECRET_KEY", "a-key-for-the-samples-only")
    monkeypatch.setenv("CONVERT_ENDPOINT", tracking_server.endpoint)  # nothing leaves this machine
    run(page, monkeypatch)


PAGE = """\
Text.
```python
from __future__ import annotations
ONE = 1
```
1. A list

   ```python no-run
   async def never() -> None:
       raise SystemExit
   ```
```text
not python
```
````python
def check() -> None:
    assert ONE == {number}, "```"
check()
````
"""


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    first, second, third = samples_of(page)
    assert (first.line, second.line, third.line) == (3, 9, 16)
    assert (first.runs, second.runs, third.runs) == (True, False, True)
    assert second.code.startswith("async def never")
    assert str(second) == f"{page}:9"


def test_blocks_of_a_page_share_one_namespace_and_its_failures_name_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("{number}", "1"))
    run(page, monkeypatch)
    page.write_text(PAGE.replace("{number}", "2"))
    with pytest.raises(AssertionError) as caught:
        run(page, monkeypatch)
    assert caught.value.__notes__ == [f"in the sample at {page}:17"]


def test_a_block_that_names_a_file_can_be_imported_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# first_of_two.py\nONE = 1\n```\n```python\nfrom first_of_two import ONE as AGAIN\n```\n"
    )
    run(page, monkeypatch)
    assert (tmp_path / "first_of_two.py").read_text() == "# first_of_two.py\nONE = 1\n"
    monkeypatch.delitem(sys.modules, "first_of_two")


def test_a_sample_that_is_not_run_must_still_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python no-run\nfine = 1\nif:\n```\n")
    with pytest.raises(SyntaxError) as caught:
        run(page, monkeypatch)
    assert caught.value.__notes__ == [f"in the sample at {page}:3"]


def test_an_unknown_word_behind_python_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python norun\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:1: 'norun' is not one of"):
        samples_of(page)
