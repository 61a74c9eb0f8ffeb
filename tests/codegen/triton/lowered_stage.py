"""Programs brought into the stage that device kernels are made from."""

from xllmc.codegen.triton.cuda import CudaTarget
from xllmc.compiler.ir.program import Program
from xllmc.compiler.pipeline.listing import pass_list
from xllmc.compiler.pipeline.run import RunOptions, run


def for_device(program: Program) -> Program:
    """After the passes that an accelerator's target asks for."""
    wanted = CudaTarget("sm_90").passes()
    passes = [one for one in pass_list().passes if isinstance(one, wanted)]
    return run(program, passes, RunOptions(verification="structure"))[0]
