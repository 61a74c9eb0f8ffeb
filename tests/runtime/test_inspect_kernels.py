"""What ``xllmc inspect`` tells of device kernels."""

from xllmc.runtime.artifact.schema import Condition, DeviceKernel, FunctionPlan, Launch, Plan, Term, Work
from xllmc.runtime.inspect_kernels import kernel_lines, table
from xllmc.runtime.machine import target_profile

WORK = Work(
    op="linear",
    dtype="bf16",
    streamed={"1": 4_800_000_000},
    read={"T": 1},
    write={"T": 1},
    flops={"T": 1},
    tasks={"1": 132},
)
ONE = (Term(),)


def launch(kernel: str, origin: str, work: Work | None = None, least: int = 0, most: int | None = None) -> Launch:
    when = (Condition(symbol="T", least=least, most=most),)
    return Launch(kernel=kernel, operands=(), origin=origin, work=work, grid=(ONE, ONE, ONE), when=when)


def kernel(name: str) -> DeviceKernel:
    return DeviceKernel(
        name=name,
        path=f"kernels/{name}.cubin",
        symbol=name,
        parameters=("sizes",),
        warps=4,
        shared_bytes=0,
        registers=9,
    )


PLAN = Plan(
    arenas={},
    buffers=(),
    functions=(
        FunctionPlan(
            name="forward",
            inputs=(),
            outputs={},
            launches=(
                launch("few", "m:linear", WORK, most=16),
                launch("sum", "m:linear/sum", most=16),
                launch("many", "m:linear/many", least=17),
                launch("few", "n:linear", WORK, most=16),
            ),
        ),
    ),
    device_kernels=tuple(map(kernel, ("few", "sum", "many", "idle"))),
)


def test_a_nodes_work_counts_for_the_first_launch_that_runs():
    """4.8 GB at the data sheet's 4.8 TB/s take a millisecond; a further launch of the node takes that of a launch."""
    choice = target_profile("cuda:sm_90")
    assert choice is not None
    lines = {line.kernel.name: line for line in kernel_lines(PLAN, choice)}
    assert lines["few"].launches == 2
    assert 2e-3 < (lines["few"].decode or 0) < 2.1e-3
    assert lines["few"].prefill is None
    assert lines["sum"].decode == choice.profile.ceilings.launch
    assert lines["many"].decode is None and 1e-3 < (lines["many"].prefill or 0) < 1.1e-3
    assert lines["idle"].launches == 0 and lines["idle"].decode is None


def test_nothing_is_predicted_for_machines_that_nobody_knows():
    assert target_profile("ascend:910b") is None
    assert all(line.decode is None for line in kernel_lines(PLAN, None))
    assert target_profile("cpu") is not None


def test_the_table_names_what_is_known():
    text = "\n".join(table(kernel_lines(PLAN, target_profile("cuda:sm_80"))))
    assert "regs" in text and "few" in text and text.splitlines()[1].split()[:3] == ["few", "2", "9"]
