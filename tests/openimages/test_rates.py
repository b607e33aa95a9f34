"""How often a host is asked."""

import threading
import time

from imgclf.openimages import rates


def test_rates_are_kept():
    limits, stop = rates.HostRates(50, burst=5), threading.Event()
    start = time.monotonic()
    for _ in range(15):
        limits.acquire("https://c1.staticflickr.com/1.jpg", stop)
    assert 0.19 <= time.monotonic() - start < 0.4  # five at once, ten at 50 a second
    limits.acquire("https://other.example.org/", stop)
    assert time.monotonic() - start < 0.4
    assert rates.site("https://farm6.staticflickr.com/a") == rates.site("https://c1.staticflickr.com/b") == "staticflickr.com"
    assert rates.site("http://127.0.0.1:80/") == "127.0.0.1"


def test_a_host_that_asks_for_a_pause_gets_it_and_others_go_on():
    limits, stop = rates.HostRates(0), threading.Event()
    start = time.monotonic()
    limits.pause("http://busy.example.org/", 0.2)
    limits.acquire("http://other.example.net/", stop)
    assert time.monotonic() - start < 0.15
    limits.acquire("http://busy.example.org/", stop)
    assert time.monotonic() - start >= 0.2
