"""Descriptions of accelerators, each with its source: what a compiled program's demands are held against.

All rates are the vendors' peaks, which no program reaches, so that what is divided by them is a lower bound of a time.
"""

import dataclasses
from typing import Literal

Kind = Literal["tpu", "gpu"]


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator; bytes and FLOP in units, rates per second.

    Attributes:
      name: by which topologies name it, such as "v5e".
      title: for people.
      kind: "tpu" or "gpu".
      bf16_flops: peak of dense bfloat16 products, summed in float32.
      f32_flops: peak of products of float32 operands that are computed in float32. A TPU takes six passes of bfloat16 for one
        (`jax.lax.Precision.HIGHEST`), so that it is a sixth of `bf16_flops` there.
      memory_bytes: of high-bandwidth memory that a program may have; less than the vendor's round number, see `memory_note`.
      memory_rate: of high-bandwidth memory.
      link_rate: what a chip sends in one direction to the others of its fast domain, over all its links: the slice of a TPU (ICI), the
        host of GPUs (NVLink).
      network_rate: its share of what its host sends in one direction to hosts outside of the fast domain.
      chips_per_host: as the compiler's description of the topology groups them.
      shapes: the slices that there are, for TPUs; () = any number of whole hosts, or a part of one.
      clock: cycles per second, by which the compiler's estimates of cycles become times: the peak over what the matrix units do in a
        cycle; 0 = the compiler makes no estimates, or what a cycle does isn't published.
      source: where the figures stand.
      memory_note: where `memory_bytes` comes from.
      target: of GPUs, the text of XLA's `GpuTargetConfig` by which it compiles without one.
    """

    name: str
    title: str
    kind: Kind
    bf16_flops: float
    f32_flops: float
    memory_bytes: int
    memory_rate: float
    link_rate: float
    network_rate: float
    chips_per_host: int
    shapes: tuple[tuple[int, ...], ...]
    clock: float
    source: str
    memory_note: str
    target: str = ""

    @property
    def usable_bytes(self) -> int:
        """What a training may have of the memory: on GPUs the share that JAX takes by default."""
        return self.memory_bytes if self.kind == "tpu" else round(0.75 * self.memory_bytes)


_GIB = 2**30
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))  # slices of a two-dimensional torus
_DEEP = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8))
_LIBTPU = "what libtpu 0.0.42 lets a program have: it refuses one that needs more"


def _gpu_target(  # noqa: PLR0913  (the figures of a data sheet, by name)
    title: str,
    *,
    capability: tuple[int, int],
    cores: int,
    shared: int,
    shared_of_block: int,
    l2: int,
    rate: float,
    clock: float,
    memory: int,
) -> str:
    """XLA's `GpuTargetConfig` as a text proto; the names are XLA's."""
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {64 if capability[0] == 8 else 128}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {round(rate)}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_of_block}
  cuda_compute_capability {{ major: {capability[0]} minor: {capability[1]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{title}"
"""


_H100_BYTES, _A100_BYTES = 84_929_347_584, 80_000_000_000
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v5e",
            title="TPU v5e",
            kind="tpu",
            bf16_flops=197e12,
            f32_flops=197e12 / 6,
            memory_bytes=round(15.75 * _GIB),
            memory_rate=819e9,
            link_rate=200e9,
            network_rate=3.125e9,
            chips_per_host=4,
            shapes=_FLAT,
            clock=197e12 / (2 * 4 * 128 * 128),  # four units of 128 x 128
            source="https://cloud.google.com/tpu/docs/v5e",
            memory_note=_LIBTPU,
        ),
        Chip(
            name="v5p",
            title="TPU v5p",
            kind="tpu",
            bf16_flops=459e12,
            f32_flops=459e12 / 6,
            memory_bytes=round(95.74 * _GIB),
            memory_rate=2765e9,
            link_rate=600e9,
            network_rate=6.25e9,
            chips_per_host=4,
            shapes=_DEEP,
            clock=459e12 / (2 * 2 * 4 * 128 * 128),  # two cores with four units of 128 x 128
            source="https://cloud.google.com/tpu/docs/v5p",
            memory_note=_LIBTPU,
        ),
        Chip(
            name="v6e",
            title="TPU v6e",
            kind="tpu",
            bf16_flops=918e12,
            f32_flops=918e12 / 6,
            memory_bytes=round(31.25 * _GIB),
            memory_rate=1638e9,
            link_rate=400e9,
            network_rate=12.5e9,
            chips_per_host=4,
            shapes=_FLAT,
            clock=0,
            source="https://cloud.google.com/tpu/docs/v6e",
            memory_note=_LIBTPU,
        ),
        Chip(
            name="a100",
            title="NVIDIA A100 SXM, 80 GB",
            kind="gpu",
            bf16_flops=312e12,
            f32_flops=19.5e12,
            memory_bytes=_A100_BYTES,
            memory_rate=2039e9,
            link_rate=300e9,
            network_rate=25e9,
            chips_per_host=8,
            shapes=(),
            clock=0,
            source="https://www.nvidia.com/en-us/data-center/a100/",
            memory_note="the data sheet's 80 GB; JAX takes 75 % of it unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise",
            target=_gpu_target(
                "NVIDIA A100-SXM4-80GB",
                capability=(8, 0),
                cores=108,
                shared=167_936,
                shared_of_block=166_912,
                l2=41_943_040,
                rate=2039e9,
                clock=1.41,
                memory=_A100_BYTES,
            ),
        ),
        Chip(
            name="h100",
            title="NVIDIA H100 SXM, 80 GB",
            kind="gpu",
            bf16_flops=989.4e12,
            f32_flops=66.9e12,
            memory_bytes=_H100_BYTES,
            memory_rate=3352e9,
            link_rate=450e9,
            network_rate=50e9,
            chips_per_host=8,
            shapes=(),
            clock=0,
            source="https://resources.nvidia.com/en-us-tensor-core/nvidia-h100-datasheet",
            memory_note="what CUDA reports; JAX takes 75 % of it unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise",
            target=_gpu_target(
                "NVIDIA H100 80GB HBM3",
                capability=(9, 0),
                cores=132,
                shared=233_472,
                shared_of_block=232_448,
                l2=52_428_800,
                rate=3_352_320_000_000,
                clock=1.98,
                memory=_H100_BYTES,
            ),
        ),
    )
}
