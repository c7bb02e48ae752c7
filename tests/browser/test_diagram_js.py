"""Diagrams in a page: what is read out of a source, where it is drawn, and what a broken one says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from playwright.async_api import Page

from kit.lab.diagram import Diagram

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD = "const { draw, readChart } = await import('/kit/widgets/diagram.js');"


async def read(page: Page, source: str) -> Any:
    return await page.evaluate(
        f"async (source) => {{ {LOAD} const c = readChart(source); return [c.across, [...c.boxes], c.edges]; }}", source
    )


async def boxes(page: Page, source: str) -> dict[str, dict[str, float]]:
    """Where each label is drawn, by the browser's own measure of the drawing, and the drawing itself under ''."""
    return dict(await page.evaluate(f"""async (source) => {{ {LOAD}
        const svg = draw(source);
        document.body.replaceChildren(svg);
        const place = (e) => {{ const {{ x, y, width, height }} = e.getBBox(); return {{ x, y, width, height }}; }};
        const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
        const labels = [...svg.querySelectorAll("text:not(.kit-label)")];
        return [["", {{ x: 0, y: 0, width, height }}], ...labels.map((l) => [l.textContent, place(l.previousSibling)])];
    }}""", source))  # fmt: skip


def beside(a: dict[str, float], b: dict[str, float], at: str, size: str) -> bool:
    return a[at] + a[size] <= b[at] or b[at] + b[size] <= a[at]


async def failure(page: Page, source: str) -> str:
    return str(await page.evaluate(f"async (source) => {{ {LOAD} try {{ draw(source); }} catch (e) {{ return e.message; }} }}", source))


async def test_every_kind_of_box_and_arrow_is_read(blank: Page) -> None:
    """A label may stand where a box comes first or later; several arrows in one line."""
    source = """flowchart LR
    %% a comment
      a[Box one] -->|yes| b(Round)
      b-->c([Pill]) --- d[(Store)];

      d -.-> e{Choice} ==> a
      e --> f
      f["in quotes"]"""
    across, nodes, edges = await read(blank, source)
    assert across
    kinds = {id: (box["kind"], box["label"]) for id, box in nodes}
    assert kinds == {
        "a": ("box", "Box one"), "b": ("round", "Round"), "c": ("pill", "Pill"), "d": ("store", "Store"), "e": ("choice", "Choice"),
        "f": ("box", "in quotes"),
    }  # fmt: skip
    assert [(e["from"], e["arrow"], e["to"], e["label"]) for e in edges] == [
        ("a", "-->", "b", "yes"), ("b", "-->", "c", ""), ("c", "---", "d", ""), ("d", "-.->", "e", ""),
        ("e", "==>", "a", ""), ("e", "-->", "f", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("direction", ["TD", "LR"])
async def test_what_follows_stands_behind_and_nothing_covers_anything(blank: Page, direction: str) -> None:
    """In 40 charts at random, circles too: no two boxes overlap, all are in the drawing, and an arrow of no circle points onward."""
    rng = random.Random(7)
    for _ in range(40):
        names = [f"n{i}" for i in range(rng.randint(1, 12))]
        edges = [(rng.choice(names), rng.choice(names)) for _ in range(rng.randint(0, 16))]
        source = "\n".join([f"flowchart {direction}", *names, *(f"{a} -->|x| {b}" for a, b in edges)])
        drawn = await boxes(blank, source)
        whole = drawn.pop("")
        assert drawn.keys() == set(names)
        for name, box in drawn.items():
            assert box["x"] >= 0 <= box["y"], source
            assert box["x"] + box["width"] <= whole["width"], source
            assert box["y"] + box["height"] <= whole["height"], source
            for other in (drawn[o] for o in names if o != name):
                assert beside(box, other, "x", "width") or beside(box, other, "y", "height"), source
        onward = "x" if direction == "LR" else "y"
        for a, b in edges:
            if names.index(a) < names.index(b) and all(names.index(x) < names.index(y) for x, y in edges):
                assert drawn[a][onward] < drawn[b][onward], source


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "nothing to draw"),
        ("flowchart TD", "nothing to draw"),
        ("sequenceDiagram\n a->>b: hi", 'line 1: a drawing begins with `flowchart TD` or `LR`, not at "sequenceDiagram"'),
        ("flowchart TD\n a --> ", 'line 2: a box such as a[text] is missing at ""'),
        ("flowchart TD\n a[no end --> b", 'line 2: an arrow such as --> is missing at "[no end --> b"'),
        ("flowchart TD\n a\n b ~> c", 'line 3: an arrow such as --> is missing at " ~> c"'),
        ("flowchart TD\n" + "".join(f"a{i} --> b{i}\n" for i in range(60)), "more than 100 boxes or arrows"),
    ],
)
async def test_a_broken_source_says_where(blank: Page, source: str, says: str) -> None:
    """In a sentence that names the line."""
    assert says in await failure(blank, source)


async def test_a_label_is_text(blank: Page) -> None:
    """Markup in it is shown as it is."""
    evil = "<img src=x onerror='window.pwned=1'>"
    assert evil in await boxes(blank, f"flowchart TD\n a[{evil}] -->|{evil}| b")
    assert await blank.evaluate("[window.pwned, document.querySelectorAll('img').length]") == [None, 0]


async def test_a_notebook_has_the_source_for_jupyterlab_and_for_all_others() -> None:
    """JupyterLab draws the one, and everything else shows the other."""
    source = "flowchart LR\n  a --> b"
    assert Diagram(source)._repr_mimebundle_() == {"text/vnd.mermaid": source, "text/plain": source}
    assert repr(Diagram(source)) == source
