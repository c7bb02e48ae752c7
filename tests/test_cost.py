"""Cost: the bill is what is used times what it costs, and the drawing is the bill."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import msgspec
import pytest

from kit.lab.cost import METERS, PRICES, Load, Price, Way, bill, used

LOAD = Load(people=10, opened=3600.0, answers=5, seconds=20.0, tokens=100, gb=2.0, share=4)
POLLING = Way("polling", "request", each=1, every=2.0, lasts=0.1, look=(0.01, 500, 3), word=(0.02, 900, 8), token=(0.001, 10, 0.5))
EVENTS = Way("SSE", "answer", each=1, word=(0.01, 500, 3), token=(0.001, 20, 1))
SOCKET = Way("WebSocket", "page", every=300.0, look=(0.01, 800, 4), word=(0.005, 200, 3), token=(0.001, 12, 1))


def test_polling_uses_a_request_for_each_look() -> None:
    """10 people for an hour, every 2 s: 18,000 looks, and 50 questions; an instance is held while a request lasts, by a quarter of 2 GB."""
    assert used(LOAD, POLLING) == pytest.approx(
        {
            "requests": 18_050,
            "CPU": 18_000 * 0.01 + 50 * 0.02 + 5_000 * 0.001,
            "data": 18_000 * 500 + 50 * 900 + 5_000 * 10,
            "commands": 18_000 * 3 + 50 * 8 + 5_000 * 0.5,
            "connections": 1_805,
            "memory": 1_805 * 2 / 4,
        }
    )


def test_a_stream_is_held_for_an_answer_and_a_socket_for_the_page() -> None:
    """50 answers of 20 s against ten hours; a socket is dialled again at the platform's maximum duration."""
    assert (used(LOAD, EVENTS)["connections"], used(LOAD, EVENTS)["requests"]) == (1_000, 50)
    assert (used(LOAD, SOCKET)["connections"], used(LOAD, SOCKET)["requests"]) == (36_000, 120)


def test_a_word_costs_what_it_spends_though_it_is_no_request() -> None:
    """On a socket 50 words are said on connections that are open: no request more, but their bytes and their commands."""
    silent = msgspec.structs.replace(SOCKET, word=(0, 0, 0))
    more = {meter: used(LOAD, SOCKET)[meter] - used(LOAD, silent)[meter] for meter in METERS}
    assert more == pytest.approx({"CPU": 0.25, "memory": 0, "requests": 0, "data": 10_000, "commands": 150, "connections": 0})


def test_a_bill_is_use_times_price() -> None:
    """Each meter by its own unit; twice the people cost twice as much."""
    prices = {**PRICES, "connections": Price(0.25, 60e6, "a gateway")}
    one, two = (
        bill(LOAD, [SOCKET], prices),
        bill(Load(**{f: getattr(LOAD, f) for f in LOAD.__struct_fields__} | {"people": 20}), [SOCKET], prices),
    )
    assert one["WebSocket"]["connections"] == pytest.approx(36_000 / 60e6 * 0.25)
    assert one["WebSocket"]["CPU"] == pytest.approx((120 * 0.01 + 50 * 0.005 + 5_000 * 0.001) * 0.128 / 3600)
    assert one.total("WebSocket") == pytest.approx(sum(one["WebSocket"].values()))
    assert two.total("WebSocket") == pytest.approx(2 * one.total("WebSocket"))
    assert used(Load(), Way("nothing", "request"))["requests"] == 0


def test_every_price_says_where_and_when_it_was_read() -> None:
    """All but the one that is left to the learner."""
    assert tuple(PRICES) == METERS
    assert all("20" in price.source and "/" in price.source for meter, price in PRICES.items() if meter != "connections")
    told = repr(bill(LOAD, [POLLING, SOCKET]))
    assert all(price.source in told for price in PRICES.values())
    assert "polling" in told.splitlines()[1]


def test_the_drawing_is_the_bill() -> None:
    """Well-formed, on a white ground, told in its title; a bar is as wide as its share of the dearest way."""
    drawn = bill(LOAD, [POLLING, EVENTS, SOCKET])
    picture, svg = ET.fromstring(drawn._repr_svg_()), "{http://www.w3.org/2000/svg}"
    assert picture.findtext(f"{svg}title") == repr(drawn)
    ground, *bars = [rect for rect in picture.iter(f"{svg}rect") if rect.get("height") != "12"]
    assert ground.get("fill") == "white"
    wide = [float(bar.get("width", "")) for bar in bars]
    assert len(wide) == 3 * len(METERS)
    dearest = max(map(drawn.total, drawn))
    for i, way in enumerate(drawn):
        assert math.fsum(wide[6 * i : 6 * i + 6]) == pytest.approx(480 * drawn.total(way) / dearest, abs=0.5)


def test_nothing_used_is_drawn_too() -> None:
    empty = bill(Load(people=0), [SOCKET])
    assert empty.total("WebSocket") == 0
    ET.fromstring(empty._repr_svg_())
