"""Waiting for a condition until a deadline, and the two kinds of failure that tests tell apart by it.

Nothing here sleeps for a fixed time but pause, for tests whose subject is that time passes. Tests import all this from
harness.py.
"""

import os
import sys
import time

# Sanitizers and a loaded machine stretch every deadline.
PATIENCE = float(os.environ.get("DROVER_TEST_PATIENCE", "1"))


class Late(AssertionError):
    """A time bound was missed: that may be the doing of a busy machine."""


class Broken(AssertionError):
    """What must never happen, happened: something was lost, doubled or left over."""


def say_broken(text):
    """The line that tests/second-try looks for."""
    print(f"BROKEN PROMISE: {str(text).splitlines()[0] if str(text) else 'without words'}", file=sys.stderr, flush=True)


def wait_for(condition, seconds=10, what="", step=0.01):
    """The first true value of condition(); Late after `seconds`, with the words of `what`, or with those it returns."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            words = what() if callable(what) else what
            raise Late(f"after {seconds * PATIENCE:.0f} s still not so: {words or condition}")
        time.sleep(step)


def wait_surely(condition, seconds, what, step=0.01):
    """wait_for, where never is worse than late: what is not so 20 s later either is lost or left over."""
    try:
        return wait_for(condition, seconds, what, step)
    except Late as late:
        try:
            wait_for(condition, 20, what, step)
        except Late:
            raise Broken(f"{late}, nor 20 s later") from None
        raise


def assert_in_time(took, limit, what=""):
    """Both in the same unit, whichever."""
    if took >= limit:
        raise Late(f"{took} is not below {limit}: {what}")


def pause(seconds):
    """Lets time pass where passing time is what is measured (an idle process, a limit that must not strike early)."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)
