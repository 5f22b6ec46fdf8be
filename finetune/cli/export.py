"""`finetune export`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.export.exporting import Exported


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY_DIR", help="folder of a study, such as runs/topics")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder for the model")
    parser.add_argument("--variant", metavar="NAME", help="which variant; may be left out where there is one")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, metavar="N", help="the run under this seed")
    which.add_argument(
        "--best-validation",
        action="store_true",
        help="the run that is best by validation; the default where the runs were validated, else the first seed",
    )
    which.add_argument("--soup", action="store_true", help="the soup of the variant's seeds, where the recipe has one")
    parser.add_argument(
        "--form",
        metavar="FORM",
        help="transformers, adapter, sentence-transformers, onnx, gguf-f16, gguf-q8_0; default: the first that can",
    )
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="ask it about at most N held-out examples before it is written; default: 500, or 100 where it writes",
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the hub too")
    parser.add_argument("--public", action="store_true", help="with --push: let everyone see a new repository")


def run(args: Namespace) -> int:
    """Take a trained model away in the form that other programs load, proven to answer as it was scored."""
    from finetune.cli.collecting import uncollected
    from finetune.cli.output import live_progress
    from finetune.core.errors import bad_input

    if args.examples is not None and args.examples < 1:
        raise bad_input("--examples", f"{args.examples} examples prove nothing", "write 1 or more")
    with live_progress() as progress:
        with uncollected(), progress.phase("loading the libraries"):
            from finetune.export import push
            from finetune.export.exporting import export

        if args.push:
            push.check_push(args.push)
        how = {name: getattr(args, name) for name in ("form", "variant", "seed", "best_validation", "soup", "examples")}
        found = export(args.study, args.to, **how, repo=args.push)
        address = push.push(args.to, args.push, f"Export {found.title}", not args.public) if args.push else None
    for line in told(found, args.to, address):
        print(line)
    return 0


def told(found: Exported, to: Path, address: str | None = None) -> list[str]:
    """Say what was written and what it was held against."""
    from finetune.cli.output import wrapped

    about = found.certificate["agreement"]
    engine, versions = found.certificate["engine"]["name"], found.certificate["engine"]["versions"]
    engine += f" {versions[engine]}" if engine in versions else f" ({', '.join(map(' '.join, versions.items()))})"
    lines = [
        f"{found.title}: {found.certificate['chosen']}",
        f"as {found.form}, asked about {about['examples']} held-out examples in {engine}: {about['same']:.2%} of "
        f"{about['answers']:,} answers are the trained model's",
    ]
    lines += [f"left out: {count} examples, because {why}" for why, count in about["left_out"].items()]
    if about["gain"] and not found.certificate["exact"]:
        low, high = about["gain"]["ci"] or (float("nan"), float("nan"))
        mean = about["gain"]["mean"]
        lines.append(f"its mean score differs by {mean:+.4g} (95 % interval {low:+.4g} to {high:+.4g})")
    lines = [wrapped(line.rstrip(), hanging="  ") for line in lines]
    lines.append(f"written: {to} (README.md says how to use it)")
    return [*lines, *([f"pushed: {address}"] if address else [])]
