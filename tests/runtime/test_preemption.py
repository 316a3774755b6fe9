import os
import signal
import subprocess
import sys
import time

import pytest

from runtime.preemption import StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_only_heard_and_handlers_come_back(number, code):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.code is None
        os.kill(os.getpid(), number)
        assert stop.code == code
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(second):
    code = """
import time
from runtime.preemption import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.code:
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"heard\n"
    began = time.monotonic()
    process.send_signal(second)
    assert process.wait(timeout=30) == -second
    assert time.monotonic() - began < 5
    process.stdout.close()
