"""The command line: ``python -m srwm_agents export --agent PATH --format onnx|torch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from srwm_agents.agent import AgentError, load_agent
from srwm_agents.command_line import OneLineParser, fail, program
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
    add("--agent", type=Path, required=True, help="A portable agent's folder, such as train_dir/NAME/agent")
    add("--format", choices=sorted(FORMATS), default="onnx", help="ONNX, or PyTorch's torch.export (default: onnx)")
    add("--output", type=Path, help="The file to write (default: the agent's folder with .onnx or .pt2 at its end)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    target = args.output or args.agent.with_name(args.agent.name + SUFFIXES[args.format])
    try:
        exported = export_agent(load_agent(args.agent), target, args.format)
    except (AgentError, OSError) as error:
        return fail(str(error), "export")
    except KeyboardInterrupt:
        sys.stderr.write(f"{program('export')}: interrupted, nothing was written\n")
        return 130
    print(f"wrote {exported.path}")
    print(f"inputs: {', '.join(exported.inputs)}; outputs: {', '.join(exported.outputs)}")
    print(f"largest difference from the agent: {exported.difference:.1e}")
    return 0
