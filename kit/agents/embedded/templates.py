"""Templates: all that the scripted model knows by heart: a weather table, a few functions, a plan, and what it says of itself."""

WEATHER: dict[str, tuple[int, str, int]] = {
    "Oslo": (4, "light snow", 3),
    "Berlin": (9, "overcast", 5),
    "Paris": (12, "sunny spells", 4),
    "London": (11, "drizzle", 6),
    "Rome": (18, "clear", 2),
    "Cairo": (28, "clear", 4),
    "New York": (13, "windy", 8),
    "Tokyo": (16, "clear", 3),
}
"""City: degrees Celsius, the sky, metres per second. Plausible numbers, made up once; nothing is measured."""

CODE: dict[str, str] = {
    "fibonacci": """\
def fibonacci(n: int) -> list[int]:
    numbers, a, b = [], 0, 1
    for _ in range(n):
        numbers.append(a)
        a, b = b, a + b
    return numbers
""",
    "prime": """\
def is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))
""",
}
"""What it is about, and the source of one function."""

PLAN = (
    "Write down in one sentence what is true when it is done.",
    "Do the riskiest part first, as small as possible, and look at it.",
    "Do the rest in steps that each end with something to show.",
)

ME = (
    "I am the scripted model of this kit, no language model. I count (“count to 20”), do sums (“what is 17 * 23”), tell the weather of a "
    "few cities, write a small function (“write a function for fibonacci”), make a plan (“plan a trip to Rome”), and call the tools I am "
    "given when you name them. For a real model, set OPENAI_API_KEY (and OPENAI_BASE_URL and KIT_MODEL, where it is not OpenAI's) and "
    "start again."
)
