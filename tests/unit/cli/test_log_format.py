from __future__ import annotations

import json
import logging
import subprocess
import sys

from relive.cli.log_format import JsonLines

FAILING = """
import logging, sys, threading, warnings
logging.basicConfig(stream=sys.stderr)
from relive.cli.log_format import logs_are_json, use_log_format
use_log_format("text")
assert not logs_are_json()
use_log_format("json")
warnings.warn("look out")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise SystemExit(3) if len(sys.argv) > 1 else ValueError("two\\nlines")
"""


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("relive", logging.INFO, "", 0, "%s\n%s", ("π", b"\0"), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"] == "π\nb'\\x00'"
    assert (said["level"], said["logger"]) == ("INFO", "relive")


def test_what_nobody_caught_and_warnings_are_lines_of_json_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    warned, thread, failed = map(json.loads, done.stderr.splitlines())
    assert "look out" in warned["message"]
    assert (thread["level"], thread["thread"]) == ("CRITICAL", "worker")
    assert "ZeroDivisionError" in thread["exception"]
    assert failed["exception"].endswith("ValueError: two\nlines")
