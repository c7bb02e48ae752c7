"""Intents: what the scripted model says to a prompt, as whole text.

An intent is a function from a `Turn` to a `Script`, or None where the prompt is not for it; the first that answers wins. The order
matters: what is exact (`count to 20`) comes before what is guessed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kit.agents.embedded import arithmetic, templates
from kit.agents.embedded.filling import fill

MOST = 100_000
"""The highest number that is counted to, and the most numbers in one answer."""


@dataclass(frozen=True)
class Tool:
    """A function that the request offers: its name and the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)


class Ran(NamedTuple):
    """A tool that ran in this turn: its name, its arguments as they were given, and its output."""

    name: str
    arguments: Mapping[str, Any]
    output: str


class Script(NamedTuple):
    """One reply as whole text: the thought, then the content, then the tools to call with their arguments."""

    thought: str
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True)
class Turn:
    """What one prompt has led to so far: `answers` holds what the person said to the model's own questions."""

    prompt: str
    tools: tuple[Tool, ...] = ()
    ran: tuple[Ran, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)

    def has(self, pattern: str) -> bool:
        return re.search(pattern, self.prompt, re.IGNORECASE) is not None

    def ask(self, question: str, choices: list[str], thought: str) -> Script:
        """The question through the tool `ask`, where it is offered, and otherwise in plain text."""
        if any(tool.name == "ask" for tool in self.tools):
            return Script(thought, "", (("ask", {"text": question, "choices": choices}),))
        return Script(thought, f"{question} For example: {', '.join(choices)}.")


Intent = Callable[[Turn], Script | None]


def count(turn: Turn) -> Script | None:
    """`count to N`, `count from A to B`: the numbers, nothing else."""
    asked = re.search(r"\bcount\b(?:[^\d]*?\bfrom\s+(-?\d+))?\D*?\bto\s+(-?\d+(?:,\d{3})*)", turn.prompt, re.IGNORECASE)
    if not asked:
        return None
    digits = [d.replace(",", "") for d in (asked[1] or "", asked[2])]
    if max(map(len, digits)) > 9:
        return Script("That is a long way.", f"I count to {MOST:,} at most.")
    last = int(digits[1])
    first = int(digits[0]) if digits[0] else min(1, max(last, 0))
    if max(abs(first), abs(last)) > MOST or abs(last - first) > MOST:
        return Script("That is a long way.", f"I count to {MOST:,} at most.")
    step = 1 if first <= last else -1
    start = f" from {first}" if digits[0] else ""
    return Script(f"The person wants me to count{start} to {last}.", " ".join(map(str, range(first, last + step, step))))


def sums(turn: Turn) -> Script | None:
    """`what is 17 * 23`: exact, or an honest sentence why not."""
    text = arithmetic.find(turn.prompt)
    if text is None:
        return None
    shown = text if len(text) <= 60 else text[:57] + "..."
    try:
        value = arithmetic.spell(arithmetic.evaluate(text))
    except arithmetic.NoValue as reason:
        return Script("A sum, but one with a catch.", f"I can't give you {shown}: it {reason}.")
    return Script("A sum; I work it out exactly.", f"{shown} is {value}.")


def actions(turn: Turn) -> Script | None:
    """Any offered tool that the prompt names: each is called once, one after the other, and then what came of them is told."""
    wanted = [(tool.name, filled) for tool in turn.tools if (filled := _wanted(tool, turn.prompt)) is not None]
    ran = {r.name: r for r in turn.ran}
    for name, arguments in wanted:
        if name not in ran:
            return Script(f"The person wants {_spoken(name)}: there is a tool for it.", "", ((name, arguments),))
    if not wanted:
        return None
    said = [f"I called {name}{_shown(ran[name].arguments)}, and it answered: {_told(ran[name].output)}." for name, _ in wanted]
    return Script("The tools have answered.", " ".join(said))


def weather(turn: Turn) -> Script | None:
    """The weather: through a tool where one is offered, else out of the bundled table; asks back where the city is missing."""
    if not turn.has(r"\b(?:weather|forecast|temperature)\b"):
        return None
    cities = _cities(turn.prompt) or ([turn.answers[CITY].strip()] if turn.answers.get(CITY, "").strip() else [])
    if not cities:
        return turn.ask(CITY, list(templates.WEATHER)[:4], "The person wants the weather, but did not say where.")
    tool = next((t for t in turn.tools if "weather" in t.name.lower()), None)
    if tool is None:
        return Script(f"The weather in {_and(cities)}: I look into my table.", " ".join(map(_from_table, cities)))
    told = [r for r in turn.ran if r.name == tool.name]
    if left := cities[len(told) :]:
        calls = tuple((tool.name, _with_city(tool, city, turn.prompt)) for city in left)
        return Script(f"The person wants the weather in {_and(left)}. There is a tool for that.", f"Let me look up {_and(left)}:", calls)
    said = [f"{tool.name} says about {city}: {_told(r.output)}." for r, city in zip(told, cities, strict=False)]
    return Script("The tool has answered.", " ".join(said))


def code(turn: Turn) -> Script | None:
    """A function out of a few templates; asks which where none fits."""
    if not turn.has(r"\b(?:code|function|snippet|implement|write .*(?:program|python))\b"):
        return None
    wanted = f"{turn.prompt} {turn.answers.get(FUNCTION, '')}".lower()
    found = next((name for name in templates.CODE if name[:6] in wanted), None)
    if found is None and FUNCTION in turn.answers:
        return Script("None of my templates fits.", f"I know no {turn.answers[FUNCTION]!r}, only {_and(list(templates.CODE))}.")
    if found is None:
        return turn.ask(FUNCTION, list(templates.CODE), "The person wants code; which function is not clear to me.")
    about, source = templates.CODE[found]
    return Script(f"A function for {found}; I have a template.", f"{about}\n\n```python\n{source}```\n")


def plan(turn: Turn) -> Script | None:
    """A numbered list about the prompt's own topic."""
    asked = re.search(r"\bplan\b\s*(?:me\b)?\s*(?:for|of|to|how to|about|on)?\s*(.*)", turn.prompt, re.IGNORECASE | re.DOTALL)
    if not asked:
        return None
    topic = " ".join((asked[1].strip(" .?!,") or turn.answers.get(TOPIC, "").strip()).split())[:120]
    if not topic:
        return turn.ask(TOPIC, ["a trip", "a talk", "a release"], "A plan is wanted, but I don't know for what.")
    steps = "\n".join(f"{i}. {step.format(topic=topic)}" for i, step in enumerate(templates.PLAN, 1))
    return Script(f"The person wants a plan: {topic}.", f"A plan for {topic}:\n\n{steps}")


def hello(turn: Turn) -> Script | None:
    """A greeting, a call for help, or the question who is speaking."""
    if not re.fullmatch(
        r"\W*(?:hello|hi|hey|help|good (?:morning|evening)|who are you|what are you|what can you do)\b[\w ,']{0,20}\W*",
        turn.prompt,
        re.IGNORECASE,
    ):
        return None
    return Script("I introduce myself.", f"Hello. I am the scripted model of this kit, no language model. {templates.ABILITIES}")


def otherwise(turn: Turn) -> Script:
    """What a script cannot do, said honestly."""
    asked = " ".join(turn.prompt.split())
    shown = f"“{asked if len(asked) <= 80 else asked[:77] + '...'}” is beyond my script." if asked else "You did not ask me anything."
    told = "".join(f" {r.name} answered: {_told(r.output)}." for r in turn.ran)
    return Script(
        "That is not in my script; I say so.",
        f"I am the scripted model of this kit, no language model: {shown}{told} {templates.ABILITIES} {templates.REAL_MODEL}",
    )


INTENTS: tuple[Intent, ...] = (count, actions, sums, weather, code, plan, hello)

CITY, TOPIC, FUNCTION = "Which city?", "A plan for what?", "Which function?"
QUESTIONS = (CITY, TOPIC, FUNCTION)


def _wanted(tool: Tool, prompt: str) -> dict[str, Any] | None:
    """Arguments for a tool that the prompt names: with all words of its name, or, verb aside, with all that it requires."""
    words = [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", tool.name)]
    if tool.name == "ask" or "weather" in words:
        return None  # these have intents of their own
    nouns = [w for w in words if w not in ("get", "set", "show", "do", "run", "make", "list")]
    missing = [w for w in words if not re.search(rf"\b{w}", prompt, re.IGNORECASE)]
    if not words or (not nouns and missing) or set(missing) & set(nouns):
        return None
    filled = fill(tool.schema, prompt)
    return filled.arguments if filled.found or not missing else None


def _cities(prompt: str) -> list[str]:
    """The cities of the table that the prompt names, in its order; else whatever stands after "in" or "for"."""
    folded = _fold(prompt)
    known = sorted((m.start(), city) for city in templates.WEATHER if (m := re.search(rf"\b{_fold(city)}\b", folded)))
    if known:
        return [city for _, city in known]
    stop = r"(?:today|tomorrow|tonight|now|right|please|this|next|on|at|like|the)\b"
    named = re.search(rf"\b(?:in|for)\s+((?:(?!{stop})[^\W\d_][\w'’-]*\s*){{1,3}})", prompt, re.IGNORECASE)
    place = named[1].strip() if named else ""
    return [place] if place and _fold(place) not in ("me", "my city", "here", "my area", "celsius", "degrees") else []


def _from_table(city: str) -> str:
    known = next((name for name in templates.WEATHER if _fold(name) == _fold(city)), None)
    if known is None:
        return f"{city} is not in the small table that comes with this kit; it knows {_and(list(templates.WEATHER))}."
    celsius, sky, wind = templates.WEATHER[known]
    return f"In {known} it is {celsius} °C, {sky}, with wind of {wind} m/s (out of a small table that comes with this kit, not measured)."


def _with_city(tool: Tool, city: str, prompt: str) -> dict[str, Any]:
    properties: Mapping[str, Any] = tool.schema.get("properties", {})
    slot = next((p for p in properties if re.search("city|location|place|town|where", p.lower())), None)
    slot = slot or next((p for p, s in properties.items() if s.get("type") == "string"), "city")
    return {**fill(tool.schema, prompt).arguments, slot: city}


def _told(output: str) -> str:
    """A tool's output in words: the fields of an object, a JSON string's text, else as it is."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        value = output
    said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return said.strip().rstrip(".") or "nothing"


def _shown(arguments: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'{k} {v!r}' for k, v in arguments.items())}" if arguments else ""


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _fold(text: str) -> str:
    """Lower case without accents: São Paulo is found as sao paulo."""
    return "".join(c for c in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(c))
