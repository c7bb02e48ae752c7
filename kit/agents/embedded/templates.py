"""Templates: all that the scripted model knows by heart: a weather table, a few functions, a plan, and what it says of itself."""

WEATHER: dict[str, tuple[int, str, int]] = {
    "Oslo": (4, "light snow", 3),
    "Berlin": (9, "overcast", 5),
    "Paris": (12, "sunny spells", 4),
    "London": (11, "drizzle", 6),
    "Rome": (18, "clear", 2),
    "Madrid": (17, "clear", 3),
    "Lisbon": (19, "a few clouds", 5),
    "Vienna": (8, "fog", 1),
    "Helsinki": (2, "sleet", 5),
    "Cairo": (28, "clear", 4),
    "Nairobi": (23, "showers", 3),
    "New York": (13, "windy", 8),
    "San Francisco": (15, "fog", 5),
    "São Paulo": (24, "thunderstorms", 3),
    "Tokyo": (16, "clear", 3),
    "Sydney": (22, "sunny", 6),
}
"""City: degrees Celsius, the sky, metres per second. Plausible numbers, made up once; nothing is measured."""

CODE: dict[str, tuple[str, str]] = {
    "fibonacci": (
        "The first n Fibonacci numbers:",
        """\
def fibonacci(n: int) -> list[int]:
    numbers, a, b = [], 0, 1
    for _ in range(n):
        numbers.append(a)
        a, b = b, a + b
    return numbers
""",
    ),
    "prime": (
        "Whether n is prime, by trial division up to its root:",
        """\
def is_prime(n: int) -> bool:
    if n < 2:
        return False
    divisor = 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return True
""",
    ),
    "reverse": (
        "The text backwards:",
        """\
def reverse(text: str) -> str:
    return text[::-1]
""",
    ),
    "fizzbuzz": (
        "FizzBuzz from 1 to n:",
        """\
def fizzbuzz(n: int) -> list[str]:
    lines = []
    for i in range(1, n + 1):
        word = "Fizz" * (i % 3 == 0) + "Buzz" * (i % 5 == 0)
        lines.append(word or str(i))
    return lines
""",
    ),
    "factorial": (
        "n! without recursion:",
        """\
def factorial(n: int) -> int:
    if n < 0:
        raise ValueError("n must not be negative")
    product = 1
    for i in range(2, n + 1):
        product *= i
    return product
""",
    ),
}
"""What it computes: a sentence and the source of one function."""

PLAN = (
    "Write down in one sentence what is true when {topic} is done.",
    "List what is needed for {topic}, and what of it is already there.",
    "Do the riskiest part first, as small as possible, and look at it.",
    "Do the rest in steps that each end with something to show.",
    "Show {topic} to somebody else and change what they stumble over.",
)

ABILITIES = (
    "I count (“count to 20”), do sums (“what is 17 * 23”), tell the weather of a few cities, write a small function (“write a function "
    "for fibonacci”), make a plan (“plan a trip to Rome”), and call the tools I am given when you name them."
)
REAL_MODEL = "For a real model, set OPENAI_API_KEY (and OPENAI_BASE_URL and KIT_MODEL, where it is not OpenAI's) and start again."
