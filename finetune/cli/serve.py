"""`finetune serve`."""

from __future__ import annotations

import importlib.util
import sys
from argparse import ArgumentParser, Namespace

from finetune.cli.arguments import add_overrides
from finetune.cli.predict import MODEL, OPTIONS

PACKAGES = ("starlette", "uvicorn")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    add_overrides(parser, OPTIONS)
    said = "address to listen at; others than this machine's need a token in FINETUNE_SERVE_TOKEN"
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help=f"{said}. Default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any that is free")
    parser.add_argument("--waiting", type=int, default=512, metavar="N", help="requests that may wait; default: 512")
    said = "size of the largest request, in KiB; default: 1024"
    parser.add_argument("--largest", type=int, default=1024, metavar="KIB", help=said)
    said = "seconds for what is being answered when it is told to stop; default: 60"
    parser.add_argument("--grace", type=float, default=60.0, metavar="S", help=said)


def run(args: Namespace) -> int:
    """Serve a model over HTTP as OpenAI's API does, for trying out and small loads."""
    _refuse(args)
    from finetune.cli.output import console
    from finetune.core.shown import make_progress
    from finetune.core.signals import StopRequest
    from finetune.inference.serving import bound, serve, token_for

    token = token_for(args.host)
    with bound(args.host, args.port) as listening, make_progress(console(sys.stderr)) as progress:
        with progress.phase("loading the libraries"):
            from finetune.inference.asking import asking, refuse_unasked
            from finetune.inference.loading import open_model
            from finetune.inference.served import Served
            from finetune.inference.service import LOOPBACK, Limits, Service
        opened = open_model(args.model, args.overrides)
        refuse_unasked(opened)
        with asking(opened, progress, StopRequest(), probabilities=True) as asker:
            served = Served(asker)
            limits = Limits(args.largest << 10, args.waiting)
            service = Service(served, token, limits, args.host in LOOPBACK, progress.say)
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            progress.say(f"http://{shown}:{port} serves {served.name}: {', '.join(served.endpoints)}; Ctrl-C stops it")
            if served.endpoints != ["/v1/classify"]:
                progress.say("for more than trying out: finetune export, then vllm serve FOLDER")
            serve(service, listening, args.grace, progress.say)
    return 0


def _refuse(args: Namespace) -> None:
    """Refuse what cannot be, before anything is loaded."""
    from finetune.core.errors import bad_input

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        found = f"serving needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise bad_input(None, found, "pip install 'finetune[serve]'")
    if not 0 <= args.port <= 65535:
        raise bad_input("--port", f"is {args.port}", "a port is a number from 0 to 65535")
    for name, least in (("waiting", 1), ("largest", 1), ("grace", 0)):
        if getattr(args, name) < least:
            raise bad_input(f"--{name}", f"is {getattr(args, name)}", f"write {least} or more")
