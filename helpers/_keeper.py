"""Run a command until it ends or standard input closes. Standard library alone: it starts in a moment.

A process group of its own keeps Ctrl-C away from the server: it reaches the program that holds the pipe,
which then ends the server in order.
"""

import os
import select
import signal
import subprocess
import sys

if __name__ == "__main__":
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked_to_end: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.append(True))
    while server.poll() is None and not asked_to_end:
        ready, _, _ = select.select([0], [], [], 0.2)
        if ready and not os.read(0, 1):
            break
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        if server.poll() is None:
            os.killpg(server.pid, number)  # the whole group: a server may have workers
            try:
                server.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    sys.exit(server.returncode or 0)
