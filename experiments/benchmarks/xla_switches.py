"""What XLA:CPU's switches do to a training step of ResNet-18 and to bf16 features of ResNet-50: CPU seconds beside imgclf's own setting.

    taskset -c 0 python experiments/benchmarks/xla_switches.py
    taskset -c 0 python experiments/benchmarks/xla_switches.py --only xla_cpu_prefer_vector_width=512 --rounds 3

Each switch has a process of its own, as XLA reads them once; a process of imgclf's own setting runs before it. A ratio above 1 means that
the switch takes less CPU time. XLA ends a process at a switch or a value that it doesn't know: the table says so. Which switches an
installed jaxlib has, `--list` prints: XLA names some when it is asked for one that it doesn't have; the others stand in its library.
Cost: about a minute a switch on one core.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from imgclf.runtime import processor

OURS = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
# A later switch of the same name takes the place of an earlier one; several words are one setting.
SWITCHES = (
    "xla_cpu_experimental_ynn_fusion_type=",
    "xla_cpu_experimental_ynn_fusion_type=individual_dot,individual_convolution",
    "xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce",
    "xla_cpu_use_onednn=true",
    "xla_cpu_use_onednn=true xla_cpu_experimental_onednn_fusion_type=dot,eltwise",
    "xla_cpu_experimental_onednn_custom_call=true",
    "xla_cpu_use_onednn=true xla_cpu_experimental_onednn_custom_call=true",
    "xla_cpu_use_acl=true",
    "xla_cpu_use_xnnpack=false",
    "xla_cpu_experimental_xnn_fusion_type=dot",
    "xla_cpu_experimental_xnn_graph_fusion_mode=XNN_GRAPH_FUSION_MODE_GREEDY",
    "xla_cpu_multi_thread_eigen=false",
    "xla_cpu_prefer_vector_width=512",
    "xla_cpu_prefer_vector_width=128",
    "xla_cpu_max_isa=AVX2",
    "xla_cpu_use_fusion_emitters=false",
    "xla_cpu_use_multi_output_fusion=true",
    "xla_cpu_enable_concurrency_optimized_scheduler=true",
    "xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED",
    "xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_RUNTIME",
    "xla_cpu_enable_fast_math=true",
    "xla_cpu_enable_fast_min_max=false",
    "xla_cpu_copy_insertion_use_region_analysis=true",
    "xla_cpu_experimental_enable_tiling_propagation=true",
    "xla_cpu_parallel_codegen_split_count=1",
    "xla_cpu_flatten_after_fusion=true",
    "xla_cpu_strict_dot_conv_math=true",
    "xla_llvm_disable_expensive_passes=true",
    "xla_llvm_force_inline_before_split=false",
    "xla_force_enable_experimental_llvm_ir_gemm=true",
    "xla_cpu_this_does_not_exist=true",
)
WORKS = {
    "resnet18 step": {"name": "resnet18", "train": True, "precision": "f32", "batch_size": 8, "size": 128},
    "resnet50 bf16 features": {"name": "resnet50", "train": False, "precision": "bf16", "batch_size": 8, "size": 128},
}
_RUNS = 5


def measure(work: str) -> float:
    """The least CPU seconds of one run."""
    import jax
    import models

    run = models.prepared(**WORKS[work])
    for _ in range(2):
        jax.block_until_ready(run())
    times = []
    for _ in range(_RUNS):
        start = time.process_time()
        jax.block_until_ready(run())
        times.append(time.process_time() - start)
    return min(times)


def in_process(setting: str, work: str) -> float | str:
    """CPU seconds of a work under a setting, or the reason why there are none."""
    flags = " ".join([OURS, *(f"--{switch}" for switch in setting.split())])
    environment = os.environ | {"XLA_FLAGS": flags, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    done = subprocess.run([sys.executable, __file__, "--one", work], capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return float(json.loads(done.stdout.splitlines()[-1]))
    if "Unknown flag" in done.stderr:
        return "unknown to this jaxlib"
    return f"ends with code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:100]}"


def available() -> list[str]:
    """The names of XLA:CPU's and LLVM's switches in the installed jaxlib."""
    import jaxlib

    code = "import jax; jax.devices()"
    environment = os.environ | {"XLA_FLAGS": "--help"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False).stderr
    library = (Path(jaxlib.__file__).parent / "libjax_common.so").read_bytes()
    names = re.findall(rb"\0(xla_(?:cpu|llvm|backend|force)_[a-z0-9_]+)\0", library)
    return sorted({*re.findall(r"--(xla_(?:cpu|llvm|backend|force)_\w+)", said), *(name.decode() for name in names)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the switches that the installed jaxlib has")
    parser.add_argument("--only", nargs="+", default=SWITCHES, metavar="SWITCH=VALUE", help="these settings instead of all")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of processes for each")
    parser.add_argument("--one", choices=WORKS, help=argparse.SUPPRESS)  # in a process of its own: prints the seconds
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if arguments.list:
        print("\n".join(available()))
        return
    print(f"{processor.describe()['cpu']}; jaxlib {metadata.version('jaxlib')}; imgclf's setting: {OURS}")
    print(f"| switch | {' | '.join(WORKS)} |\n|---|{'---|' * len(WORKS)}")
    for setting in arguments.only:
        cells = []
        for work in WORKS:
            ratios: list[float] = []
            for _ in range(arguments.rounds):
                ours, other = in_process("", work), in_process(setting, work)
                if isinstance(ours, str) or isinstance(other, str):
                    break
                ratios.append(ours / other)
            cells.append(" ".join(f"{ratio:.2f}" for ratio in sorted(ratios)) or str(other))
        print(f"| {setting} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
