"""Work and timings of several processes, one kind at a time."""

import threading
import time

import torch

from sparsevit.latency.shared_machine import SharedMachine


def test_nobody_works_while_somebody_times(tmp_path):
    working, overlaps, timed = set(), [], []
    ended = threading.Event()

    def work(number):
        machine = SharedMachine(tmp_path, 1, 1)
        while not ended.is_set():
            with machine.step():
                working.add(number)
                time.sleep(0.002)
                working.discard(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    machine = SharedMachine(tmp_path, 1, 1)
    for _ in range(20):
        with machine.timing():
            overlaps.append(set(working))
            time.sleep(0.002)
            overlaps.append(set(working))
            timed.append(True)
    ended.set()
    for worker in workers:
        worker.join()
    assert len(timed) == 20  # those who work never keep out who wants to time
    assert overlaps == [set()] * 40


def test_a_timing_has_all_threads(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with SharedMachine(tmp_path, 2, 1).timing():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
