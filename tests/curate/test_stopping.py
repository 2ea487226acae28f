"""Ctrl-C and SIGTERM are held until nothing is half done, and are never lost."""

import os
import signal
import threading

import pytest
from killing import write_source

from medglip import store
from medglip.curate import convert, plan
from medglip.curate.stopping import stops_held

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handled():
    """Handlers as a command has them: both signals interrupt."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_look_and_is_handed_on_once(number):
    with stops_held() as look:
        look()
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            look()
        look()
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_second_signal_is_not_held():
    with stops_held():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_nobody_handles_is_left_alone():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with stops_held():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_thread_has_no_signals_to_hold():
    held = []

    def work():
        with stops_held() as look:
            look()
            held.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [signal.default_int_handler]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_is_stopped_where_an_interrupt_would_be_swallowed(tmp_path, monkeypatch, workers):
    class Closing:
        def __del__(self) -> None:  # as a file's, in which Python ignores what is raised
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(plan, "CASES_PER_PART", 2)
    source = write_source(tmp_path, 8)
    done = []

    def on_case(counts):
        done.append(counts.committed)
        if counts.done == 3:
            Closing()

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "in", tmp_path / "d", workers=workers, on_case=on_case)
    assert done[-1] == 2
    result = convert(source, tmp_path / "in", tmp_path / "d")
    assert (result.skipped, result.complete) == (2, True)
    convert(source, tmp_path / "in", tmp_path / "whole")
    assert len(store.open(tmp_path / "d")) == len(store.open(tmp_path / "whole"))
