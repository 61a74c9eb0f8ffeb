"""Make ``schemas.json`` again from an installed torch_npu: ``python -m xllmc.codegen.ascend.graph.snapshot``.

torch_npu replaces parts of a plain ``import torch``, so it belongs into an environment of its own, and this process
sets ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``. It imports where CANN's libraries (libascendcl, libhccl and others) are found,
or stand-ins whose functions return 0: registering operators calls none that matters. The committed file was made so,
from the wheel of torch_npu 2.13.0, on a machine without an NPU.
"""

import json
import os
from importlib import import_module
from pathlib import Path

OPERATORS = (
    # what the lowering calls
    "npu_add_layer_norm",
    "npu_add_rms_norm",
    "npu_fused_infer_attention_score",
    "npu_layer_norm_eval",
    "npu_rms_norm",
    "npu_rotary_mul",
    "npu_scatter_pa_kv_cache",
    "npu_swiglu",
    # and near neighbours, for providers to come
    "npu_add_rms_norm_v2",
    "npu_apply_rotary_pos_emb",
    "npu_fast_gelu",
    "npu_fused_infer_attention_score.out",
    "npu_fused_infer_attention_score_v2",
    "npu_gather_pa_kv_cache",
    "npu_geglu",
    "npu_grouped_matmul",
    "npu_kv_rmsnorm_rope_cache",
    "npu_linear",
    "npu_moe_gating_top_k",
    "npu_qkv_rms_norm_rope_cache",
    "npu_quant_matmul",
    "npu_scatter_nd_update_",
    "npu_top_k_top_p",
)
"""Names in torch_npu's namespace ``npu``, with the overload where it has one."""

SNAPSHOT = Path(__file__).parents[1] / "schemas.json"


def installed_schemas() -> tuple[str, dict[str, str]]:
    """torch_npu's version, and the schema of each of ``OPERATORS``; KeyError where it lacks one."""
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    torch, torch_npu = import_module("torch"), import_module("torch_npu")
    found = {}
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space == "npu":
            found[f"{name}.{schema.overload_name}" if schema.overload_name else name] = str(schema)
    return torch_npu.__version__, {name: found[name] for name in OPERATORS}


def main() -> None:
    version, schemas = installed_schemas()
    SNAPSHOT.write_text(json.dumps({"torch_npu": version, "operators": schemas}, indent=1, sort_keys=True) + "\n")
    print(f"{SNAPSHOT.name}: {len(schemas)} operators of torch_npu {version}")


if __name__ == "__main__":
    main()
