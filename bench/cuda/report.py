"""The figures of ``xllmc bench cuda`` as lines, each with what is wanted of it."""

from collections.abc import Iterator

from .figures import Speed
from .measure import CudaFigures

WANTED_DECODE = {"0.6b": 0.35, "8b": 0.70}
"""Of the copy bandwidth, for one sequence."""
WANTED_BATCH, WANTED_PREFILL = 0.60, {"8b": 0.60}
"""Of the binding limit with 64 sequences; of the matrix rate for a prompt of 2,048."""
WANTED_OVER_PEER = {"0.6b": 2.0, "8b": 1.2}
WANTED_CAPTURE, WANTED_GAP, WANTED_INVARIANT = 2.0, 50e-6, 0.90
"""Seconds; seconds; of the speed without batch invariance."""


def report(figures: CudaFigures) -> str:
    """A line for each figure, with what is wanted."""
    return "\n".join(f"{name:44} {value:44} {wanted}".rstrip() for name, value, wanted in lines(figures))


def lines(figures: CudaFigures) -> Iterator[tuple[str, str, str]]:
    device, limits = figures.device, figures.limits
    yield "device", f"{device.name}, {device.architecture}, driver {device.driver}", ""
    yield "clocks", f"{device.sm_clock_mhz} MHz, memory {device.memory_clock_mhz} MHz", ""
    yield "copy bandwidth, read and written", f"{limits.copy_bytes_per_second / 1e12:.2f} TB/s", ""
    yield "bf16 matrix rate", f"{limits.matrix_flops / 1e12:.0f} TFLOP/s", ""
    for parity in figures.parity:
        value = f"{parity.largest_error:.2e} of {parity.largest_logit:.1f}; transformers {parity.peer_error:.2e}"
        yield f"logits, {parity.dtype}: largest error", value, ""
        yield f"logits, {parity.dtype}: alone as in a batch", "identical" if parity.alone_equals_batched else "not", ""
    for size, speed in figures.speed.items():
        yield from speed_lines(size, speed)
        if peer := figures.peer.get(size):
            for decode in speed.decode:
                ratio = decode.tokens_per_second / peer.decode_tokens_per_second[decode.sequences]
                wanted = at_least(ratio, WANTED_OVER_PEER[size], "x") if decode.sequences == 1 else ""
                yield f"{size}: decode, {decode.sequences} over transformers", f"{ratio:.2f}x", wanted
            ratio = peer.prefill_seconds / speed.prefill.seconds
            yield f"{size}: prefill over transformers", f"{ratio:.2f}x", ""
    for size, invariant in figures.invariant.items():
        if speed_too := figures.speed.get(size):
            for one, plain in zip(invariant.decode, speed_too.decode, strict=True):
                ratio = plain.step_seconds / one.step_seconds
                name = f"{size}: batch-invariant decode, {one.sequences}"
                yield name, f"{ratio:.0%} of the speed", at_least(ratio, WANTED_INVARIANT)
            ratio = speed_too.prefill.seconds / invariant.prefill.seconds
            yield f"{size}: batch-invariant prefill", f"{ratio:.0%} of the speed", at_least(ratio, WANTED_INVARIANT)


def speed_lines(size: str, speed: Speed) -> Iterator[tuple[str, str, str]]:
    for decode in speed.decode:
        value = f"{decode.step_seconds * 1e3:.3f} ms, {decode.tokens_per_second:.0f} tokens/s, {decode.share:.0%}"
        least = WANTED_DECODE[size] if decode.sequences == 1 else WANTED_BATCH
        yield f"{size}: decode, {decode.sequences}: of the limit", value, at_least(decode.share, least)
        gap = f"{decode.gap_seconds * 1e6:.0f} us"
        yield f"{size}: decode, {decode.sequences}: host gap", gap, at_most(decode.gap_seconds, WANTED_GAP)
    prefill = speed.prefill
    wanted = at_least(prefill.share, WANTED_PREFILL[size]) if size in WANTED_PREFILL else ""
    yield f"{size}: prefill of {prefill.tokens}", f"{prefill.seconds * 1e3:.2f} ms, {prefill.share:.0%}", wanted
    capture = f"{speed.capture_seconds:.2f} s of {speed.load_seconds:.2f} s for {speed.graphs} graphs"
    yield f"{size}: capture of all keys", capture, at_most(speed.capture_seconds, WANTED_CAPTURE)


def at_least(value: float, wanted: float, unit: str = "%") -> str:
    text = f"{wanted:.0%}" if unit == "%" else f"{wanted:g}{unit}"
    return f"{'met' if value >= wanted else 'MISSED'}: at least {text}"


def at_most(value: float, wanted: float) -> str:
    text = f"{wanted:g} s" if wanted >= 0.1 else f"{wanted * 1e6:g} us"
    return f"{'met' if value <= wanted else 'MISSED'}: at most {text}"
