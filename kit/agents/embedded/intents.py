"""Intents: what the scripted model says to a prompt, as whole text.

An intent is a pattern and a function from the turn and the match to a `Reply`, or None where the prompt is not for it after all. The
first that answers wins, so what is exact (`count to 20`) comes before what is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from kit.agents.conversation import Call, Wanted
from kit.agents.embedded.requests import Schema
from kit.agents.embedded.templates import CODE, ME, PLAN, WEATHER

MOST = 10_000  # is counted to
QUESTIONS = CITY, FUNCTION, TOPIC = ("Which city?", "Which function?", "A plan for what?")


class Reply(NamedTuple):
    """What is said: the thought, then the content, then the tools that are called."""

    thought: str
    content: str
    calls: Sequence[Wanted] = ()


class Turn(NamedTuple):
    """What one prompt has led to so far: the calls that `ran`, and the person's `answer` to a question of the model's."""

    prompt: str
    tools: Mapping[str, Schema]
    ran: Sequence[Call] = ()
    answer: str = ""

    def ask(self, question: str, choices: list[str]) -> Reply:
        """The question through the tool `ask`, where it is offered, and otherwise in plain text."""
        thought = f"Something is missing, so I ask back: {question}"
        if "ask" in self.tools:
            return Reply(thought, "", [_call("ask", {"text": question, "choices": choices})])
        return Reply(thought, f"{question} For example: {', '.join(choices)}.")


def count(turn: Turn, found: re.Match[str]) -> Reply:
    """The numbers, and nothing else."""
    digits = found[1].replace(",", "")
    if len(digits) > len(str(MOST)) or int(digits) > MOST:
        return Reply("That is a long way.", f"I count to {MOST} at most.")
    return Reply(f"The person wants me to count to {digits}.", " ".join(map(str, range(1, int(digits) + 1))))


def tools(turn: Turn, found: re.Match[str]) -> Reply | None:
    """The offered tools that the prompt names with all the words of their names: one after the other, then what came of them."""
    words = set(re.findall(r"[a-z0-9]+", turn.prompt.lower()))
    named = [name for name in turn.tools if "weather" not in name and name != "ask" and words.issuperset(name.lower().split("_"))]
    ran = {call.name: call for call in turn.ran}
    for name in named:
        if name not in ran:
            call = _call(name, fill(turn.tools[name], turn.prompt))
            return Reply(f"The person wants {name.replace('_', ' ')}: there is a tool for it.", "", [call])
    told = [f"I called {name}, and it answered: {_told(ran[name].output)}." for name in named]
    return Reply("The tools have answered.", " ".join(told)) if told else None


def sums(turn: Turn, found: re.Match[str]) -> Reply | None:
    """The exact value, in fractions: 0.1 + 0.2 is 0.3. Without powers and parentheses, but * and / come first."""
    value = Fraction(0)
    terms = ["+", *re.split(r"([+-])", f"0{found[1]}")]  # the 0 is for a minus in front
    try:
        for sign, term in zip(terms[::2], terms[1::2], strict=True):
            first, *rest = re.split(r"([*/])", term)
            product = Fraction(first)
            for operator, number in zip(rest[::2], rest[1::2], strict=True):
                product = product * Fraction(number) if operator == "*" else product / Fraction(number)
            value += -product if sign == "-" else product
    except (ValueError, ZeroDivisionError):
        return None
    decimal = str(value) if value.denominator == 1 else f"{float(value):.12g}"
    about = "" if Fraction(decimal) == value else "about "
    return Reply("A sum; I work it out exactly.", f"{found[1]} is {about}{decimal}.")


def weather(turn: Turn, found: re.Match[str]) -> Reply:
    """Through a tool where one is offered, else out of the bundled table."""
    cities = _cities(found.string) or ([turn.answer] if turn.answer else [])
    if not cities:
        return turn.ask(CITY, list(WEATHER)[:4])
    tool = next((name for name in turn.tools if "weather" in name), None)
    if tool is None:
        return Reply(f"The weather in {' and '.join(cities)}: I look into my table.", " ".join(map(_from_table, cities)))
    outputs = [call.output for call in turn.ran if call.name == tool]
    if left := cities[len(outputs) :]:
        calls = [_call(tool, fill(turn.tools[tool], turn.prompt, city)) for city in left]
        places = " and ".join(left)
        announced = "" if outputs else f"Let me look up {places}:"
        return Reply(f"The person wants the weather in {places}. There is a tool for that.", announced, calls)
    return Reply("The tool has answered.", " ".join(_weather(city, output) for city, output in zip(cities, outputs, strict=False)))


def code(turn: Turn, found: re.Match[str]) -> Reply | None:
    """A function out of the templates, known by the first letters of its name: "primes"."""
    name = next((name for name in CODE if name[:5] in found.string.lower()), None)
    if name is None:
        return None if turn.answer else turn.ask(FUNCTION, list(CODE))
    return Reply(f"A function for {name}; I have a template.", f"Here it is:\n\n```python\n{CODE[name]}```")


def written(turn: Turn, found: re.Match[str]) -> Reply | None:
    """The same into a document, where documents can be written: "write a function for primes into primes.py"."""
    name = next((name for name in CODE if name[:5] in found.string.lower()), None)
    if name is None or "write_document" not in turn.tools:
        return None
    if outputs := [call.output for call in turn.ran if call.name == "write_document"]:
        return Reply("The document has it.", f"The function for {name}, into {found[1]}: {_told(outputs[-1])}.")
    return Reply(f"A function for {name}; I have a template.", "", [_call("write_document", {"name": found[1], "text": CODE[name]})])


def plan(turn: Turn, found: re.Match[str]) -> Reply:
    topic = found[1].strip(" .?!,")
    if not topic:
        return turn.ask(TOPIC, ["a trip", "a talk", "a release"])
    steps = "".join(f"\n{i}. {step}" for i, step in enumerate(PLAN, 1))
    return Reply(f"The person wants a plan for {topic}.", f"A plan for {topic}:\n{steps}")


def greeting(turn: Turn, found: re.Match[str]) -> Reply:
    """Most people's first word."""
    return Reply("A greeting; I say what I am.", f"Hello! {ME}")


def abilities(turn: Turn, found: re.Match[str]) -> Reply:
    return Reply("The person wants to know what I can do.", ME)


def otherwise(turn: Turn) -> Reply:
    """What a script cannot do, said honestly."""
    return Reply("That is not in my script; I say so.", f"“{' '.join(turn.prompt.split())[:80]}” is beyond my script. {ME}")


INTENTS: tuple[tuple[str, Callable[[Turn, re.Match[str]], Reply | None]], ...] = (
    (r"\bcount\b\D*\bto (\d[\d,]*)", count),
    (r"\b(?:code|function|program)\b.*\binto ([\w-]+\.\w+)", written),
    (r"", tools),
    (r"^(?:what(?:'s| is)|how much is|calculate|compute)?\s*(-?\d[\d\s.]*[-+*/][-\d\s.+*/]{0,150}\d)[\s=?.!]*$", sums),
    (r"\b(?:weather|forecast|temperature)\b", weather),
    (r"\b(?:code|function|program)\b", code),
    (r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening))(?: there| you)?\W*$", greeting),
    (r"^\W*(?:help|who are you|what (?:are you|can you do|do you do))\W*$", abilities),
    (r"\bplan\b(?: me)?(?: (?:for|of|to|about|on)\b)?(.*)", plan),
)


def intended(turn: Turn) -> Reply | None:
    """What the first intent that fits says; an answer is read as if it stood at the prompt's end."""
    text = f"{turn.prompt} {turn.answer}"
    scripts = (intent(turn, found) for pattern, intent in INTENTS if (found := re.search(pattern, text, re.IGNORECASE)))
    return next(filter(None, scripts), None)


def fill(schema: Schema, prompt: str, city: str | None = None) -> dict[str, Any]:
    """Arguments out of a prompt: an enum's value that occurs, the city, what stands in quotes, numbers; for a required text, the prompt."""
    numbers = [float(n) if "." in n else int(n) for n in re.findall(r"-?\b\d{1,15}(?:\.\d{1,15})?\b", re.sub(r'"[^"]+"', "", prompt))]
    texts = [city] * bool(city) + re.findall(r'"([^"]+)"', prompt)
    left: dict[str, list[Any]] = {"string": texts, "integer": numbers, "number": numbers}
    arguments: dict[str, Any] = {}
    for name, about in schema.properties.items():
        named = [value for value in about.enum if re.search(rf"\b{re.escape(str(value))}\b", prompt, re.IGNORECASE)]
        if found := named if about.enum else left.get(str(about.type)):
            arguments[name] = found.pop(0)
        elif about.type == "string" and name in schema.required:
            arguments[name] = prompt
    return arguments


def _cities(text: str) -> list[str]:
    """The cities of the table that the text names, in its order; else a name after "in" or "for"."""
    places = sorted((found.start(), city) for city in WEATHER if (found := re.search(rf"\b{city}\b", text, re.IGNORECASE)))
    return [city for _, city in places] or re.findall(r"\b(?:in|for) ([A-Z][\w'-]*(?: [A-Z][\w'-]*)*)", text)


def _from_table(city: str) -> str:
    if city not in WEATHER:
        return f"{city} is not in the small table that comes with this kit; it knows {', '.join(WEATHER)}."
    celsius, sky, wind = WEATHER[city]
    return f"In {city} it is {celsius} °C, {sky}, with wind of {wind} m/s (out of a small table, not measured)."


def _weather(city: str, output: str) -> str:
    """What a weather tool answered, as a sentence; of a tool that is not the kit's own whatever it said."""
    with suppress(msgspec.DecodeError, RecursionError):
        report = msgspec.json.decode(output, type=Report)
        return f"In {city} it is {report.celsius:g} °C with {report.sky}, and the wind blows at {report.wind:g} m/s."
    return f"The tool says about {city}: {_told(output)}."


class Report(msgspec.Struct):
    """What the kit's own `get_weather` gives: degrees Celsius, the sky, metres per second."""

    celsius: float
    sky: str
    wind: float


def _told(output: str) -> str:
    """A tool's output in words: the fields of a JSON object, else as it is."""
    try:
        fields = msgspec.json.decode(output, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return output.strip().rstrip(".") or "nothing"
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _call(name: str, arguments: dict[str, Any]) -> Wanted:
    """A call; its id is given when the whole conversation is known."""
    return Wanted("", name, msgspec.json.encode(arguments).decode())
