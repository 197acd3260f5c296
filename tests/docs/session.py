"""Runs the blocks of one page as a reader would, from top to bottom.

Python blocks share their names, all blocks share one folder. What runs in the background goes on
until the page has ended; whoever started this ends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path

BLOCK_TIMEOUT_S = 90


def run(blocks_file: str) -> int:
    """The exit code: 0 if each block in a JSON file did what it should."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in json.loads(Path(blocks_file).read_text()):
        where, text = f"line {block['line']}", block["text"]
        print(f"-- {block['kind']}, {where}", flush=True)
        if block["kind"] == "file":
            Path(block["name"]).write_text(text)
        elif block["kind"] == "sh":
            command = ["bash", "-euo", "pipefail", "-c", text]
            code = subprocess.run(command, timeout=BLOCK_TIMEOUT_S, check=False).returncode
            if code != 0:
                print(f"{where}: exit code {code}")
                return 1
        elif block["kind"] == "python":
            try:
                exec(compile(text, f"<block at {where}>", "exec"), names)
            except Exception:  # noqa: BLE001, whatever a page's code raises
                traceback.print_exc(file=sys.stdout)
                return 1
    return 0
