"""The command in a child of the test's own process, which has loaded the libraries already: it can be killed, told to
stop, and has streams of its own."""

from __future__ import annotations

import os
import signal
import sys
import time

from finetune.cli import main


class Child:
    """One command under way."""

    def __init__(self, argv, out=None, err=None, given=None, **environment):
        """``out``, ``err`` and ``given``, which it reads, are numbers of open files; None: nobody is there."""
        self.code = None
        self.number = os.fork()
        if self.number == 0:
            _be(argv, given, out, err, environment)

    def poll(self):
        """Its exit code; None: it is under way."""
        if self.code is None:
            done, status = os.waitpid(self.number, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def wait(self, seconds=120):
        """Its exit code, once it has ended; None: it has not, in so long."""
        ends = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
        return self.code

    def kill(self, number=signal.SIGKILL):
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.number, number)


def _be(argv, given, out, err, environment):
    """Do the command in the child, and end."""
    code = 99
    try:
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        nobody = os.open(os.devnull, os.O_RDWR)
        for place, own in ((0, given), (1, out), (2, err)):
            os.dup2(nobody if own is None else own, place)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        code = main(list(map(str, argv)))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except SystemExit as end:
        code = end.code
    except BrokenPipeError:  # nobody reads
        code = 1
    finally:
        os._exit(code)
