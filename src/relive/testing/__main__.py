"""Runs a Kafka broker in the foreground: python -m relive.testing [--port N] [--data FOLDER].

Prints its address on stdout. Ctrl-C or SIGTERM stops it.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from relive.testing.broker import BrokerFailed, BrokerUnavailable
from relive.testing.jvm_broker import JvmBroker, find_jars, find_java


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m relive.testing", description=__doc__)
    parser.add_argument("--port", type=int, help="listen here (default: a free port)")
    parser.add_argument("--data", type=Path, help="keep its data here (default: thrown away)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="relive-kafka-") as scratch:
        try:
            broker = JvmBroker(
                find_java(os.environ),
                find_jars(os.environ),
                options.data or Path(scratch),
                options.port,
            )
            _run_until_interrupted(broker)
        except (BrokerUnavailable, BrokerFailed) as problem:
            sys.stderr.write(f"{problem}\n")
            return 1
    return 0


def _run_until_interrupted(broker: JvmBroker) -> None:
    try:
        broker.start()
        sys.stdout.write(f"{broker.bootstrap}\n")
        sys.stdout.flush()
        broker.wait()
    except KeyboardInterrupt:
        sys.stderr.write("stopping\n")
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
