"""Write a built-in sample to any folder, and draw its annotations.

    python -m datasets.samples jrdb DIR                              the default size, seed 0
    python -m datasets.samples ultrasound DIR --size tiny --seed 3
    python -m datasets.samples jrdb DIR --preview                    also draw its annotations

The same size and seed give the same files on every machine. If DIR already holds this sample it is left as it
is; another built-in sample in it is replaced, unless files were added or changed; anything else is refused.
"""

import argparse
from pathlib import Path

from datasets.samples import KINDS, ensure_sample
from utils.run import arguments
from utils.run.errors import CommandError
from utils.run.log import start_log
from utils.run.script import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("python -m datasets.samples", __doc__)
    add = parser.add_argument
    add("kind", metavar="KIND", help=f"which sample: {', '.join(KINDS)}")
    add("directory", metavar="DIR", help="folder to write it to, made if necessary")
    add("--size", default="small", help="size of the sample; after a wrong one the sizes of KIND are listed")
    add("--seed", type=arguments.non_negative_int, default=0, help="each seed gives another synthetic world")
    add("--preview", action="store_true", help="also draw it, like python -m datasets.preview")
    add("--picture_dir", default="visualizations", help="where the pictures go")
    return parser.parse_args(parser.typed(argv))


def main(args: argparse.Namespace) -> None:
    start_log(None)
    if args.preview and args.kind != "jrdb":
        raise CommandError(f"--preview draws the annotations of jrdb, not of {args.kind}; leave it out")
    folder = ensure_sample(args.kind, args.directory, args.size, args.seed)
    print(f"sample {args.kind}: {args.size}, seed {args.seed}, in {folder}")
    if args.preview:
        from datasets.preview import draw

        draw(folder, Path(args.picture_dir))


if __name__ == "__main__":
    run_script(main, parse_args())
