"""python -m kit: lab, new, serve, token, chat, doctor."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import importlib
import json
import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kit import proactor

if TYPE_CHECKING:  # each command imports what it needs: `doctor` runs where packages are missing
    from kit.agents.tape import Tape
    from kit.history import Agent
    from kit.server import Server


MONTH = 30 * 24 * 3600.0
_CANNOT_LISTEN = {  # in words of its own: Windows' os.strerror knows no errors of sockets
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "the system does not permit it",
}


class Unusable(Exception):
    """The command line asks for something that can't be done; the sentence says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    options.more = more
    if more and options.run is not _lab:
        parser.error(f"unknown: {' '.join(more)}")
    level = (options.log or options.default_log).upper()
    stderr = logging.StreamHandler()
    stderr.setLevel(level)  # also for what has a level of its own
    logging.basicConfig(handlers=[stderr], level=level, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if level == "INFO":  # where httpx2 has a line for each request to a provider
        logging.getLogger("httpx2").setLevel("WARNING")
    proactor.mend()
    try:
        return int(asyncio.run(options.run(options)) or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:  # `_chat` was told to end, and has
        return 128 + signal.SIGTERM
    except Unusable as error:
        print(f"python -m kit: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kit", description="Real-time agents over WebSockets: learn them, prototype them.")
    parser.add_argument("--log", choices=["debug", "info", "warning", "error"], help="how much is logged to stderr")
    parser.set_defaults(default_log="warning")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    lab = commands.add_parser(
        "lab", help="open JupyterLab on your own copies of the notebooks; --port, --no-browser and what else is given goes to it"
    )
    lab.add_argument("--dir", type=Path, help="where the copies are; without it, work/ beside the notebooks")
    lab.add_argument("--model", choices=["local"], help="local: start a small real model beside it, and let every agent ask it")
    lab.set_defaults(run=_lab)

    new = commands.add_parser("new", help="write an agent of your own, and the files that a platform wants around it, into a folder")
    new.add_argument("folder", type=Path, metavar="FOLDER")
    new.set_defaults(run=_new)

    serving = commands.add_parser("serve", help="serve an agent; prints the address (and without KIT_SECRET a token) as a line of JSON")
    _serving_options(serving)
    serving.set_defaults(run=_serve, default_log="info")

    chatting = commands.add_parser("chat", help="talk to an agent in this terminal")
    chatting.add_argument("url", nargs="?", metavar="URL", help="the instance, ws://host:port; without it, one of its own, as with serve")
    chatting.add_argument("--token", help="what lets you in at URL; better in KIT_TOKEN, where no list of processes shows it")
    chatting.add_argument("--session", default="chat", help="1 to 64 characters of A-Z a-z 0-9 _ -")
    chatting.add_argument("--json", action="store_true", help="print entries, gaps and receipts as they come, a line of JSON each")
    chatting.add_argument("--state", type=Path, metavar="FILE", help="keeps what you have seen; without it, in the platform's state folder")
    _serving_options(chatting)
    chatting.set_defaults(run=_chat)

    token = commands.add_parser("token", help="print a token, signed with KIT_SECRET")
    token.add_argument("--session", default="*", help="the session it is good for; all of them without it")
    token.add_argument("--name", default="you", help="whose token it is")
    token.add_argument("--ttl", type=_duration, default=3600.0, metavar="TIME", help="how long it is good for, such as 90s, 15m, 1h, 2d")
    token.set_defaults(run=_token)

    doctor = commands.add_parser("doctor", help="check what the kit needs: one line each, with the remedy")
    doctor.add_argument("--store", metavar="URL", help="also check the store that you are going to use")
    doctor.set_defaults(run=_doctor)

    return parser


def _serving_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; anything but loopback lets others in")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--store", metavar="URL", help="redis://, rediss:// or unix://; without it, this process's own memory")
    parser.add_argument("--agent", metavar="MODULE:NAME", help="your agent, or a dict of agents by name; without it, the demo on a model")
    parser.add_argument(
        "--pace", type=float, metavar="TOKENS_PER_S", help="of the embedded model: 50, or a tape's own; 0: as fast as it can"
    )
    tapes = parser.add_mutually_exclusive_group()
    tapes.add_argument("--tape", type=Path, metavar="FILE", help="keep what the demo's model says, and save it there at the end")
    tapes.add_argument("--play", type=Path, metavar="FILE", help="let the embedded model say what is on that tape; no key is used")
    parser.add_argument("--lease", type=_positive, default=2.0, metavar="SECONDS", help="how long a turn waits for an instance that died")
    parser.add_argument("--max-duration", type=_positive, metavar="SECONDS", help="close each connection after this time, as platforms do")
    parser.add_argument("--ttl", type=_duration, default=86400.0, metavar="TIME", help="how long a session is kept after its last word: 1d")
    parser.add_argument("--keep", type=_count, default=20_000, metavar="ENTRIES", help="of a session's log; then its oldest turns go")
    parser.add_argument("--shards", type=_count, default=1, help="slots that the sessions are spread over; the same for all instances")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="a page that may connect, such as http://127.0.0.1:8888"
    )


async def _serve(options: argparse.Namespace) -> None:
    from kit.ending import on_signals

    done = asyncio.Event()
    with on_signals(done.set, signal.SIGTERM, signal.SIGINT):
        async with _instance(options) as server:
            gc.collect()
            gc.freeze()  # what is held by now stays: a full collection would look at all of it, for 15 ms in which every answer waits
            told = {"url": server.url}
            if "KIT_SECRET" not in os.environ:  # else whoever may have a token can make one, and platforms keep what is printed
                told["token"] = server.token("you", ttl=MONTH)
            print(json.dumps(told), flush=True)
            await done.wait()
            logging.getLogger("kit").info("draining: turns are handed over, sockets closed")


@asynccontextmanager
async def _instance(options: argparse.Namespace) -> AsyncIterator[Server]:
    """The instance that the options describe; raises Unusable where it can't start."""
    from kit.history import AgentError
    from kit.log import WrongShards
    from kit.server import serve  # here: `token` needs no server
    from kit.store import StoreError, StoreTooOld, without_password

    async with AsyncExitStack() as stack:
        try:
            agents = await stack.enter_async_context(_agents(options))
            serving = serve(
                agents,
                store=options.store,
                host=options.host,
                port=options.port,
                secret=os.environ.get("KIT_SECRET"),
                origins=options.origin,
                lease=options.lease,
                ttl=options.ttl,
                keep=options.keep,
                shards=options.shards,
                max_duration=options.max_duration,
            )
            server = await stack.enter_async_context(serving)
        except (StoreTooOld, WrongShards) as error:
            raise Unusable(str(error)) from None
        except StoreError as error:
            if isinstance(error, OSError) and error.errno in _CANNOT_LISTEN:
                place = f"{options.host} port {options.port}"
                raise Unusable(f"cannot listen on {place}: {_CANNOT_LISTEN[error.errno]}. Give another by --port or --host.") from None
            store = without_password(options.store) if options.store else "in memory"
            raise Unusable(f"the store ({store}) does not answer: {error}. Is it running? --store names another.") from None
        except (AgentError, ValueError, OverflowError) as error:  # the last: a port beyond 65535
            raise Unusable(str(error)) from None
        yield server


@asynccontextmanager
async def _agents(options: argparse.Namespace) -> AsyncIterator[Agent | Mapping[str, Agent]]:
    """The agent named on the command line, else the demo, on the embedded model where no key is set or a tape is played."""
    if options.agent:
        if options.tape:
            raise Unusable("--tape keeps what the demo says, and --agent names your own: give yours a tape, by openai_agent(tape=...)")
        if options.play:
            raise Unusable("--play is said by the demo, and --agent names your own: leave one of them out")
        yield _imported(options.agent)
        return
    from kit.agents import model
    from kit.agents.demo import TOOLS, default_agent, import_client

    pace = 50.0 if options.pace is None else options.pace or None
    played = _played(options.play)
    with _taped(options.tape) as tape:
        async with model.serve(pace=pace) as embedded:
            client = await asyncio.to_thread(import_client)  # now: no turn that is taken over should wait for it
            if played is None:
                yield default_agent(embedded.url, tape=tape)
                return
            embedded.play(played, pace="tape" if options.pace is None else pace)
            yield client.openai_agent(base_url=embedded.url, api_key="", dialect=played.runs[0].dialect, **TOOLS)


def _played(path: Path | None) -> Tape | None:
    """The tape of `--play`; raises Unusable."""
    from kit.agents.tape import BadTape, Tape

    try:
        return Tape.load(path) if path else None
    except BadTape as error:
        raise Unusable(f"--play wants a file that --tape has written: {error}") from None


@contextmanager
def _taped(path: Path | None) -> Iterator[Tape | None]:
    """The tape of `--tape`, which is saved when the block ends, however it does. Raises Unusable, where it can, at once."""
    if path is None:
        yield None
        return
    from kit.agents.tape import NotSaved, Tape

    tape, log = Tape(), logging.getLogger("kit")
    try:
        tape.check(path)
        try:
            yield tape
        finally:
            if tape.runs:
                tape.save(path)
                log.info("what the model said is on the tape %s", path)
            else:
                log.warning("the model has said nothing: nothing was saved to %s", path)
    except NotSaved as error:
        raise Unusable(f"--tape: {path} can't be written: {error.why}. Name another file, in a folder that you may write to") from None


def _imported(name: str) -> Agent | Mapping[str, Agent]:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            raise  # what the module itself imports is missing: the traceback says on which line
        raise Unusable(f"--agent {name}: {error}. Give module:name, from the folder that holds the module") from None
    agent: Agent | Mapping[str, Agent] | None = getattr(found, attribute, None)
    if agent is None:
        raise Unusable(f"--agent {name}: {module} has no {attribute!r}. Give module:name, from the folder that holds the module")
    if not callable(agent) and not isinstance(agent, Mapping):
        raise Unusable(f"--agent {name} is a {type(agent).__name__}: it should be an agent, or a dict of agents by name")
    return agent


async def _chat(options: argparse.Namespace) -> int:
    from kit.chat import chat
    from kit.chat.place import state_folder
    from kit.ending import end, on_signals

    _check_session(options.session)
    state = options.state or state_folder() / "chat.json"
    if options.url is None:
        async with _instance(options) as server:
            kept = state if options.store else None  # a log in this process's own memory ends with it
            token = server.token("you", ttl=MONTH)
            talk = asyncio.create_task(chat(server.url, token, session=options.session, frames=options.json, state=kept))
            try:
                with on_signals(talk.cancel, signal.SIGTERM):  # only the talk: the instance ends in order
                    await asyncio.wait({talk})
            finally:
                await end({talk})
        return talk.result()
    token = (options.token or os.environ.get("KIT_TOKEN", "")).strip()
    if not re.fullmatch(r"wss?://[^/\s?#]+/?", options.url):
        raise Unusable(f"{options.url!r} is no address of an instance: it looks like ws://127.0.0.1:8123")
    if options.tape or options.play:
        option = "--tape" if options.tape else "--play"
        raise Unusable(f"{option} is for an instance of this command's own: leave out the URL, or give it to the `serve` that runs there")
    return await chat(options.url, token, session=options.session, frames=options.json, state=state)


async def _doctor(options: argparse.Namespace) -> int:
    from kit.doctor import report

    return await report(options.store)


async def _new(options: argparse.Namespace) -> None:
    from kit.lab.project import write

    try:
        write(options.folder)
    except OSError as error:
        raise Unusable(str(error)) from None
    print(f"Written. In {options.folder}, `python -m kit chat --agent agent:agent` talks to the agent in agent.py; the line in the")
    print("Procfile serves it over a store, with REDIS_URL and KIT_SECRET set, and `python -m kit token` makes its tokens.")


async def _lab(options: argparse.Namespace) -> int:
    from kit.doctor import check_all
    from kit.work import NoNotebooks, open_lab

    failed = [check for check in await check_all() if not check.ok]
    for check in failed:
        print(check, file=sys.stderr)
    if any(check.fatal for check in failed):
        return 1
    try:
        with _model_beside(options.model):
            return open_lab(options.dir, options.more)
    except NoNotebooks as missing:
        raise Unusable(str(missing)) from None
    except OSError as error:
        raise Unusable(f"the notebooks can't be copied ({error}): name a folder that has room and may be written, with --dir") from None


@contextmanager
def _model_beside(model: str | None) -> Iterator[None]:
    """The local model while the block runs, or whatever program this one becomes in it. Raises Unusable."""
    if model is None:
        yield
        return
    from kit.agents import local

    if sentence := local.missing():
        raise Unusable(sentence)
    print(f"Starting {local.NAME}, a small real model, on this machine", flush=True)
    try:
        process, served = local.start()
    except local.NotThere as error:
        raise Unusable(str(error)) from None
    os.environ.update(served.environment())
    with process:
        yield


def _check_session(name: str) -> None:
    from kit.log import SESSION

    if not SESSION.fullmatch(name):
        raise Unusable("--session is 1 to 64 characters of A-Z a-z 0-9 _ -")


async def _token(options: argparse.Namespace) -> None:
    from kit.auth import Door

    secret = os.environ.get("KIT_SECRET", "")
    if not secret:
        raise Unusable(f"set KIT_SECRET to what the instances use, e.g. KIT_SECRET={secrets.token_urlsafe(32)}")
    if options.session != "*":
        _check_session(options.session)
    try:
        print(Door(secret, None).issue(options.name, options.session, options.ttl))
    except ValueError as error:
        raise Unusable(str(error)) from None


def _positive(text: str) -> float:
    if not 0 < float(text) < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not above 0, or is beyond all measure")
    return float(text)


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


def _duration(text: str) -> float:
    """Seconds in `90`, `90s`, `15m`, `1h` or `2d`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90s, 15m, 1h or 2d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}[found[2]]


if __name__ == "__main__":
    sys.exit(main())
