"""The command line: ``python -m srwm_agents export --agent PATH --format onnx|torch``."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence

from srwm_agents.agent import AgentError, load_agent
from srwm_agents.command_line import OneLineParser, fail, program, reason, say, user_path, writable_folder
from srwm_agents.integrations.export.exporting import FORMATS, SUFFIXES, export_agent


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("export"),
        description="Write one acting step of a saved agent, with its state in and out, as a file that runs without "
        "this package; it is run and compared with the agent first.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--agent", type=user_path, required=True, help="A portable agent's folder, such as train_dir/NAME/agent")
    add("--format", choices=sorted(FORMATS), default="onnx", help="ONNX, or PyTorch's torch.export")
    add("--output", type=user_path, help="The file to write; default: the agent's folder with .onnx or .pt2 at its end")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    agent = args.agent.resolve()  # "." has no name
    target = args.output or agent.with_name(agent.name + SUFFIXES[args.format])
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder, expected the name of a file", str(target))
        writable_folder(target.parent)  # now, and not after all the work
        exported = export_agent(load_agent(args.agent), target, args.format)
    except (AgentError, OSError) as error:
        return fail(reason(error), "export")
    except KeyboardInterrupt:
        say(f"{program('export')}: interrupted, nothing was written")
        return 130
    print(f"wrote {exported.path}")
    print(f"inputs: {', '.join(exported.inputs)}; outputs: {', '.join(exported.outputs)}")
    print(f"largest difference from the agent: {exported.difference:.1e}")
    return 0
