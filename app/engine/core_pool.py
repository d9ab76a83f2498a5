"""Threads that each compute on one core, beside others that compute on all of them."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch


def start_core_pool(threads: int) -> ThreadPoolExecutor:
    """Start as many threads, in each of which PyTorch takes one core.

    To set the number of cores is to set it for the calling thread, and for all threads that have
    not begun to compute: so these all begin here, and then the number for others is put back.
    """
    for_others = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "forward", _keep_to_one_core)
    all_here = threading.Barrier(threads)
    wait([pool.submit(all_here.wait) for _ in range(threads)])
    torch.set_num_threads(for_others)
    return pool


def _keep_to_one_core() -> None:
    torch.get_num_threads()  # a thread that has not asked takes the number of all when it computes
    torch.set_num_threads(1)
