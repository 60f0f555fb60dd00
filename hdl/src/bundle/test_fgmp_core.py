"""Plays the vectors in ../tb through fgmp_core and compares every output; each stream stalls at random.

A line of a .hex file is a beat, its fields from the highest bit on: `last`, then what stands in SENT and RECEIVED below.
COCOTB_RANDOM_SEED repeats a run.
"""

import json
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

BUNDLE = Path(__file__).resolve().parent.parent
PARAMETERS = json.loads((BUNDLE / "manifest.json").read_text())["parameters"]
BLOCK_BITS = 137  # tag, scale byte, payload of 16 bytes
STALL = 0.125  # share of cycles in which a side of a stream waits


def blocks(stream, count):
    """One port for each row or column; number 0 stands in the lowest bits."""
    return [(f"{stream}_data_{i}", BLOCK_BITS) for i in reversed(range(count))]


# Ports of each stream and their widths, the highest bits first.
SENT = {
    "weight": [("weight_last", 1), *blocks("weight", PARAMETERS["rows"])],
    "act": [("act_last", 1), *blocks("act", PARAMETERS["cols"])],
    "x": [("x_last", 1), ("x_sensitivity", 8), ("x_data", 16)],
}
RECEIVED = {
    "out": [("out_last", 1), ("out_nan", 1), ("out_acc", PARAMETERS["acc_bits"]), ("out_data", 16)],
    "payload": [("payload_last", 1), ("payload_data", 64)],
    "scale": [("scale_last", 1), ("scale_data", 8)],
    "tag": [("tag_last", 1), ("tag_data", 1)],
}


def beats(stream, ports):
    """The beats of a vector file, each as a value for every port."""
    for line in (BUNDLE / "tb" / f"{stream}.hex").read_text().split():
        beat, values = int(line, 16), {}
        for port, width in reversed(ports):
            values[port] = beat & ((1 << width) - 1)
            beat >>= width
        yield values


async def send(dut, stream, ports):
    """Offers every beat until it is taken."""
    valid, ready = dut[f"{stream}_valid"], dut[f"{stream}_ready"]
    for values in beats(stream, ports):
        while random.random() < STALL:
            await RisingEdge(dut.clock)
        for port, value in values.items():
            dut[port].value = value
        valid.value = 1
        await RisingEdge(dut.clock)
        while not int(ready.value):
            await RisingEdge(dut.clock)
        valid.value = 0


async def receive(dut, stream, ports):
    """Takes as many beats as are expected and compares each; returns their number."""
    valid, ready = dut[f"{stream}_valid"], dut[f"{stream}_ready"]
    count = 0
    for expected in beats(stream, ports):
        taken = False
        while not taken:
            offered = random.random() >= STALL
            ready.value = offered
            await RisingEdge(dut.clock)
            taken = offered and int(valid.value)
        if expected.get("out_nan"):
            del expected["out_acc"]  # beside a NaN it has no meaning
        found = {port: int(dut[port].value) for port in expected}
        assert found == expected, f"{stream} beat {count}: found {found}, expected {expected}"
        count += 1
    ready.value = 0
    return count


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def vectors_agree(dut):
    """Array and quantizer run side by side until every expected beat has come, and no other comes."""
    for name, value in json.loads((BUNDLE / "tb" / "settings.json").read_text()).items():
        dut[name].value = int(value, 16)
    for stream in SENT:
        dut[f"{stream}_valid"].value = 0
    for stream in RECEIVED:
        dut[f"{stream}_ready"].value = 0
    dut.reset.value = 1
    Clock(dut.clock, 10, "ns").start()
    await ClockCycles(dut.clock, 4)
    dut.reset.value = 0
    await RisingEdge(dut.clock)

    senders = [cocotb.start_soon(send(dut, *stream)) for stream in SENT.items()]
    receivers = [cocotb.start_soon(receive(dut, *stream)) for stream in RECEIVED.items()]
    for task in senders:
        await task
    counts = [await task for task in receivers]

    await ClockCycles(dut.clock, 200)
    for stream in RECEIVED:
        assert not int(dut[f"{stream}_valid"].value), f"{stream}: more beats than expected"
    assert not int(dut.last_mismatch.value), "weight_last and act_last differ"
    for stream, count in zip(RECEIVED, counts, strict=True):
        dut._log.info("%s: %d beats agree", stream, count)
