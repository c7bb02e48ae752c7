"""Looks: whether a page can be read, and used by whoever does not see it: contrast, width, and what axe-core finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from jupyterlab.commands import get_app_dir
from playwright.async_api import Page

CONTRAST = (Path(__file__).parent / "contrast.js").read_text().replace("export ", "")
LEAST = 4.5
"""WCAG 2.2, 1.4.3: the least contrast of a text of ordinary size."""
MOVING = """() => [...document.querySelectorAll("*")].flatMap((e) => {
    const { transitionDuration, animationName } = getComputedStyle(e);
    return transitionDuration !== "0s" || animationName !== "none" || e.getAnimations().length ? [e.outerHTML.slice(0, 100)] : [];
})"""
FOCUSED = """() => {
    const at = document.activeElement, lines = [];
    for (let e = at; e; e = e.parentElement) lines.push(getComputedStyle(e).outlineStyle);
    const label = at.labels?.[0]?.firstChild ?? at.caption;
    return [at.getAttribute("aria-label") ?? label?.textContent ?? at.innerText, lines.includes("solid")];
}"""
LIVE = """() => {
    window.spoken = [];
    const live = "[role=status], [role=alert], output, [aria-live], [role=log]";
    const observer = new MutationObserver((changes) => {
        for (const { target } of changes) {
            const region = (target instanceof Element ? target : target.parentElement)?.closest(live);
            if (region && region.getAttribute("aria-live") !== "off") window.spoken.push(region.textContent);
        }
    });
    observer.observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
GRAVE = ("serious", "critical")
BEYOND = """() => [...document.querySelectorAll(".kit :is(button, input, select, output)")]
    .filter((e) => e.offsetParent)
    .filter((e) => e.getBoundingClientRect().right > e.parentElement.closest("fieldset, .kit").getBoundingClientRect().right + 1)
    .map((e) => e.textContent || e.placeholder || e.tagName)"""
"""Controls that reach beyond the frame that they stand in."""
LOOKS: list[tuple[str | None, str, int]] = [
    (None, "light", 1000),
    (None, "dark", 400),
    (None, "light", 260),
    ("light", "dark", 1000),
    ("dark", "light", 1000),
    ("dark-high-contrast", "light", 1000),
]
"""A theme of JupyterLab's (None: a plain page), what the system prefers (with a theme: the other), and the width of the window.

260 pixels: what JupyterLab leaves for the output of a cell on a phone.
"""


async def put_on(page: Page, lab: str | None, scheme: Any, width: int, height: int = 900) -> None:
    """Give a page a theme of JupyterLab's, what its system prefers, and a size; nothing moves there."""
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.set_viewport_size({"width": width, "height": height})
    if lab:
        await page.add_style_tag(path=Path(get_app_dir()) / f"themes/@jupyterlab/theme-{lab}-extension/index.css")


async def assert_readable(page: Page, *, texts: int) -> None:
    """At least so many texts are there, each with contrast enough; nothing is wider than its place; and, as asked for, nothing moves."""
    ratios = await page.evaluate(f"async () => {{ {CONTRAST}\nreturn await contrasts(); }}")
    assert len(ratios) >= texts, ratios
    weak = {text: round(ratio, 2) for text, ratio in ratios if ratio < LEAST}
    assert not weak, weak
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the page"
    beyond = await page.evaluate(BEYOND)
    assert beyond == [], beyond
    moving = await page.evaluate(MOVING)
    assert moving == [], moving


async def assert_accessible(page: Page, within: str = ".kit") -> None:
    """axe-core finds nothing that it calls serious or critical, and every button says in letters what it does."""
    await page.evaluate(AXE_SCRIPT)
    found = await page.evaluate("async (within) => (await axe.run(within, { resultTypes: ['violations'] })).violations", within)
    told = [f"{v['id']}: {v['help']}: {node['html'][:200]}" for v in found if v["impact"] in GRAVE for node in v["nodes"]]
    assert not told, "\n".join(told)
    mute = [label for label in await page.get_by_role("button").all_inner_texts() if not any(map(str.isalpha, label))]
    assert not mute, mute


async def tab_through(page: Page, stops: int) -> list[str]:
    """The names of what Tab goes to, that many times; where it stands can be seen each time."""
    names = []
    for _ in range(stops):
        await page.keyboard.press("Tab")
        name, seen = await page.evaluate(FOCUSED)
        assert seen, f"{name}: no outline"
        names.append(name)
    return names


async def listen(page: Page) -> None:
    """From here on note what a screen reader would speak up with; `spoken` gives it."""
    await page.evaluate(LIVE)


async def spoken(page: Page) -> list[str]:
    """What live regions said since `listen`."""
    said: list[str] = await page.evaluate("window.spoken")
    return said
